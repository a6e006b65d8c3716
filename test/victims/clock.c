/*
 * clock [THREADS [BACK]]: calls the functions that the kernel has mapped into it (the vDSO), by the addresses that it found at its
 * start, and holds what they say against system calls. Threads do nothing but ask for the time, which must not go back but BACK times in
 * each, and then by a minute at most: the kernel's code reads the clock first and what the time namespace adds to it afterwards, so who
 * is dumped between the two gets the time of the dump.
 */
#include "victim.h"
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>

static int (*get_clock)(clockid_t, struct timespec *);
static int (*get_day)(struct timeval *, void *);
static time_t (*get_time)(time_t *);
static int (*get_cpu)(unsigned *, unsigned *, void *);

static volatile bool stopping;
static volatile unsigned long rounds;

/* Finds a function by its name; NULL where the kernel has none. */
static void *find(const char *name)
{
	const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)base;
	const Elf64_Phdr *segments = (const Elf64_Phdr *)(base + header->e_phoff);
	const Elf64_Dyn *d = NULL;
	const Elf64_Sym *symbols = NULL;
	const Elf64_Word *hash = NULL;
	const char *texts = NULL;

	for (int i = 0; i < header->e_phnum; i++)
		if (segments[i].p_type == PT_DYNAMIC)
			d = (const Elf64_Dyn *)(base + segments[i].p_offset);
	for (; d && d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_SYMTAB)
			symbols = (const Elf64_Sym *)(base + d->d_un.d_ptr);
		if (d->d_tag == DT_STRTAB)
			texts = base + d->d_un.d_ptr;
		if (d->d_tag == DT_HASH)
			hash = (const Elf64_Word *)(base + d->d_un.d_ptr);
	}
	for (Elf64_Word i = 0; symbols && hash && texts && i < hash[1]; i++)
		if (strcmp(texts + symbols[i].st_name, name) == 0)
			return (void *)(base + symbols[i].st_value);
	return NULL;
}

static double seconds(const struct timespec *t)
{
	return t->tv_sec + t->tv_nsec * 1e-9;
}

static void check(const char *when)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE };
	struct timespec a, b;
	struct timeval day;
	unsigned cpu = 9999, node = 9999;
	time_t t;

	for (size_t i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++)
		if (get_clock(clocks[i], &a) || syscall(SYS_clock_gettime, clocks[i], &b) || seconds(&b) < seconds(&a) - 0.1 ||
		    seconds(&b) > seconds(&a) + 5)
			victim_fail("%s: clock %d is %f, the kernel says %f", when, clocks[i], seconds(&a), seconds(&b));
	syscall(SYS_clock_gettime, CLOCK_REALTIME, &b);
	if (get_day(&day, NULL) || day.tv_sec < b.tv_sec - 1 || day.tv_sec > b.tv_sec + 5)
		victim_fail("%s: gettimeofday is %ld, the kernel says %ld", when, (long)day.tv_sec, (long)b.tv_sec);
	t = get_time(NULL);
	if (t < b.tv_sec - 1 || t > b.tv_sec + 5)
		victim_fail("%s: time is %ld, the kernel says %ld", when, (long)t, (long)b.tv_sec);
	if (get_cpu(&cpu, &node, NULL) || cpu > 8192)
		victim_fail("%s: getcpu says %u, %u", when, cpu, node);
}

static void *ask(void *most)
{
	const double dumped = 60;
	struct timespec last = { 0 }, now;
	long back = 0;

	while (!stopping) {
		if (get_clock(CLOCK_MONOTONIC, &now) || seconds(&now) < seconds(&last) - dumped ||
		    (seconds(&now) < seconds(&last) && ++back > *(long *)most)) {
			victim_fail("the time went back from %f to %f", seconds(&last), seconds(&now));
			break;
		}
		last = now;
		rounds++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long before;
	long threads, back;
	pthread_t *all;

	victim_init(argc, argv);
	threads = victim_number(1, 1);
	back = victim_number(2, 0);
	all = calloc(threads, sizeof(*all));
	get_clock = find("__vdso_clock_gettime");
	get_day = find("__vdso_gettimeofday");
	get_time = find("__vdso_time");
	get_cpu = find("__vdso_getcpu");
	if (!get_clock || !get_day || !get_time || !get_cpu)
		victim_die("the vDSO");
	check("at first");
	for (long i = 0; i < threads; i++)
		if (pthread_create(&all[i], NULL, ask, &back))
			victim_die("pthread_create");
	victim_ready();
	if (sabotage)
		get_clock = clock_getres;
	victim_wait();
	check("now");
	before = rounds;
	while (rounds == before && !victim_failed)
		usleep(1000);
	stopping = true;
	for (long i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	victim_ok();
}
