/*
 * execs [THREADS]: a child that executes this program over and over, each time from a thread that is not the first, while the
 * others, so many with the two, wait. The check is that it goes on doing so. Asked, it says "child", its pid and how often it has
 * begun.
 */
#include "victim.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { MOST = 64 };

static volatile uint64_t *rounds; /* in a file that both have mapped */
static int file;
static pid_t child;
static char number[16], threads[16];

static void map(void)
{
	void *p = mmap(NULL, sizeof(*rounds), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	if (p == MAP_FAILED)
		victim_die("mmap");
	rounds = p;
}

static void *execute(void *unused)
{
	for (;;) /* it fails for a while where the machine is short of something */
		execl("/proc/self/exe", "execs", "round", number, threads, NULL);
	return unused;
}

static void start(void *(*routine)(void *))
{
	pthread_t t;

	while (pthread_create(&t, NULL, routine, NULL))
		sched_yield();
}

static void *idle(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/* One life of the child. */
__attribute__((noreturn)) static void live(long count)
{
	for (long i = 2; i < count; i++)
		start(idle);
	++*rounds;
	start(execute);
	idle(NULL);
	_exit(99);
}

static bool goes_on(void)
{
	uint64_t before = *rounds;
	struct timespec t = { 0, 1000000 };

	for (int i = 0; i < 10000 && *rounds == before; i++)
		nanosleep(&t, NULL);
	return *rounds != before;
}

int main(int argc, char **argv)
{
	sigset_t mask;
	long count;

	if (argc == 4 && !strcmp(argv[1], "round")) {
		snprintf(number, sizeof(number), "%s", argv[2]);
		snprintf(threads, sizeof(threads), "%s", argv[3]);
		file = atoi(number);
		map();
		live(atol(threads));
	}
	victim_init(argc, argv);
	count = victim_number(1, 2);
	if (count < 2 || count > MOST)
		victim_die("%ld threads", count);
	file = memfd_create("rounds", 0);
	if (file < 0 || ftruncate(file, sizeof(*rounds)))
		victim_die("memfd_create");
	map();
	snprintf(number, sizeof(number), "%d", file);
	snprintf(threads, sizeof(threads), "%ld", count);
	child = fork();
	if (child < 0)
		victim_die("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* which stays when a program is executed */
		execute(NULL);
	}
	while (!*rounds)
		sched_yield();
	victim_ready();
	if (sabotage)
		kill(child, SIGKILL);
	mask = victim_open_mask();
	while (!victim_asked) {
		if (victim_asked_on) {
			victim_asked_on = 0;
			victim_say("child %d %llu", (int)child, (unsigned long long)*rounds);
		}
		sigsuspend(&mask);
	}
	if (!goes_on())
		victim_fail("the child does not go on");
	kill(child, SIGKILL);
	victim_ok();
}
