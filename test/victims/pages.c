/*
 * pages huge | merged [all] | swapped | zero | shared: pages that are special, each kind by itself.
 *
 * huge: transparent huge pages, whole, cut by mprotect, with holes, which the kernel may fill at any time. The check is their
 *	content, the advice, and that the kernel makes the memory huge again.
 * merged: pages of equal content that may be merged (MADV_MERGEABLE; with "all" by PR_SET_MEMORY_MERGE). The check is the
 *	content, the advice, and that what is written to one of them is not in the others.
 * swapped: pages that were swapped out, those of a child among them. The check is their content.
 * zero: memory that was read and never written, small and huge, with some written pages between. The check counts the pages
 *	that are the process's own.
 * shared: memory that a parent, a child and a grandchild share until one of them writes. The check counts the pages that
 *	all three of them have together.
 *
 * What the kernel has to do itself, a test waits for from outside: pages are merged and swapped out when it gets to it.
 */
#include "victim.h"
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

enum { PAGE = 4096, HUGE = 2 << 20, WORDS = PAGE / sizeof(uint64_t) };

/* Memory at a multiple of a huge page, between pages that nobody may touch. */
static char *map(size_t size)
{
	char *p = mmap(NULL, size + 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at = (char *)(((uintptr_t)p + 2 * HUGE - 1) / HUGE * HUGE);

	if (p == MAP_FAILED || mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		victim_die("mmap of %zu bytes", size);
	return at;
}

static void advise(char *p, size_t size, int advice)
{
	if (madvise(p, size, advice))
		victim_die("madvise(%d)", advice);
}

static void fill(char *p, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size / sizeof(uint64_t); i++)
		((uint64_t *)p)[i] = victim_word(seed, i);
}

/* Whether memory has, from some byte on, what it was filled with. */
static void check_from(const char *what, const char *p, size_t from, size_t size, uint64_t seed)
{
	for (size_t i = from / sizeof(uint64_t); i < size / sizeof(uint64_t); i++) {
		if (((const uint64_t *)p)[i] != victim_word(seed, i)) {
			victim_fail("%s: word %zu has changed", what, i);
			return;
		}
	}
}

static void check(const char *what, const char *p, size_t size, uint64_t seed)
{
	check_from(what, p, 0, size, seed);
}

static void check_zero(const char *what, const char *p, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (p[i]) {
			victim_fail("%s: byte %zu is not zero", what, i);
			return;
		}
	}
}

/* The entries of the page map of a process; see Documentation/admin-guide/mm/pagemap.rst. */
enum { SWAPPED = 62, PRESENT = 63 };
static const uint64_t PFN = (UINT64_C(1) << 55) - 1;

static void pagemap(pid_t pid, const char *p, uint64_t *entries, size_t pages)
{
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/pagemap", pid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, entries, 8 * pages, (uintptr_t)p / PAGE * 8) != (ssize_t)(8 * pages))
		victim_die("%s", name);
	close(fd);
}

/* How many pages have one of two bits in their entries. */
static size_t count(const char *p, size_t size, int bit, int other)
{
	size_t pages = size / PAGE, n = 0;
	uint64_t *entries = malloc(8 * pages);

	pagemap(getpid(), p, entries, pages);
	for (size_t i = 0; i < pages; i++)
		n += (entries[i] >> bit | entries[i] >> other) & 1;
	free(entries);
	return n;
}

static size_t resident(const char *p, size_t size)
{
	return count(p, size, PRESENT, SWAPPED);
}

/* What smaps says of the mapping at an address: a line's text, or a number of kB. */
static const char *smaps(const char *at, const char *field)
{
	static char line[512];
	FILE *f = fopen("/proc/self/smaps", "r");
	bool in = false;

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			in = start <= (unsigned long)at && (unsigned long)at < end;
		else if (in && strncmp(line, field, strlen(field)) == 0) {
			fclose(f);
			return line + strlen(field);
		}
	}
	victim_die("smaps has no %s of %p", field, at);
}

static void check_flag(const char *what, const char *at, const char *flag)
{
	if (!strstr(smaps(at, "VmFlags:"), flag))
		victim_fail("%s: no flag%s in smaps any more", what, flag);
}

/* Has the kernel make memory huge. What somebody looks at that moment it cannot move, and says so (madvise(2), EAGAIN). */
static int collapse(char *p, size_t size)
{
	enum { TRIES = 1000 };
	int failed = -1;

	for (int i = 0; i < TRIES && failed; i++) {
		failed = madvise(p, size, MADV_COLLAPSE);
		if (failed && errno != EAGAIN)
			break;
	}
	return failed;
}

static void huge(void)
{
	enum { HOLE = 17 * PAGE, HOLES = 100 * PAGE };
	char *whole = map(2 * HUGE), *cut = map(2 * HUGE), *holed = map(HUGE), *few = map(HUGE);

	advise(whole, 2 * HUGE, MADV_HUGEPAGE);
	fill(whole, 2 * HUGE, 1);
	advise(cut, 2 * HUGE, MADV_HUGEPAGE);
	fill(cut, 2 * HUGE, 2);
	if (mprotect(cut + HUGE / 2, HUGE, PROT_READ))
		victim_die("mprotect");
	advise(holed, HUGE, MADV_HUGEPAGE);
	fill(holed, HUGE, 3);
	advise(holed + HOLE, HOLES, MADV_DONTNEED);
	/* Advice that came after the page did. */
	fill(few, PAGE, 4);
	advise(few, HUGE, MADV_HUGEPAGE);

	victim_ready();
	if (sabotage)
		whole[HUGE + 12345] ^= 1;
	victim_wait();

	check("whole", whole, 2 * HUGE, 1);
	check("cut", cut, 2 * HUGE, 2);
	check("with holes, before them", holed, HOLE, 3);
	check("one page", few, PAGE, 4);
	check_zero("one page, behind it", few + PAGE, HUGE - PAGE);
	check_zero("with holes", holed + HOLE, HOLES);
	check_from("with holes, behind them", holed, HOLE + HOLES, HUGE, 3);
	check_flag("whole", whole, " hg");
	check_flag("cut", cut, " hg");
	check_flag("cut, in the middle", cut + HUGE / 2, " hg");
	check_flag("one page", few, " hg");
	if (collapse(whole, 2 * HUGE))
		victim_fail("it cannot be made huge: %s", strerror(errno));
	else if (atol(smaps(whole, "AnonHugePages:")) != 2 * HUGE / 1024)
		victim_fail("of huge memory %ld kB are huge", atol(smaps(whole, "AnonHugePages:")));
	check("whole, when it was made huge", whole, 2 * HUGE, 1);
}

static void merged(bool all)
{
	enum { COPIES = 64 };
	char *p, *other;

	if (all && prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
		victim_die("PR_SET_MEMORY_MERGE");
	p = map(COPIES * PAGE);
	other = map(COPIES * PAGE);
	if (!all) {
		advise(p, COPIES * PAGE, MADV_MERGEABLE);
		advise(other, COPIES * PAGE, MADV_MERGEABLE);
	}
	for (int i = 0; i < COPIES; i++) {
		fill(p + i * PAGE, PAGE, 1);
		fill(other + i * PAGE, PAGE, 1);
	}

	victim_ready();
	if (sabotage)
		p[10 * PAGE] ^= 1;
	victim_wait();

	check_flag("to be merged", p, " mg");
	check_flag("also to be merged", other, " mg");
	if (all && prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) != 1)
		victim_fail("PR_GET_MEMORY_MERGE says no");
	for (int i = 0; i < COPIES; i++) {
		char what[32];

		snprintf(what, sizeof(what), "page %d", i);
		check(what, p + i * PAGE, PAGE, 1);
		check(what, other + i * PAGE, PAGE, 1);
	}
	fill(p, PAGE, 2);
	check("another one than was written to", p + PAGE, PAGE, 1);
	check("the one that was written to", p, PAGE, 2);
}

static void swapped(void)
{
	enum { SIZE = 8 << 20, TRIES = 1000 };
	char *p = map(SIZE);
	int channel[2], status;
	char go;
	pid_t child;

	fill(p, SIZE, 1);
	/* Whether there is anything to swap to is not for the victim to say. Pages of two processes are left alone: before the fork. */
	for (int i = 0; i < TRIES && count(p, SIZE, SWAPPED, SWAPPED) < SIZE / PAGE; i++)
		advise(p, SIZE, MADV_PAGEOUT);
	if (pipe(channel))
		victim_die("pipe");
	child = fork();
	if (child == 0) {
		close(channel[1]);
		fill(p + SIZE / 2, PAGE, 2);
		if (read(channel[0], &go, 1) != 0)
			_exit(1);
		check("the child's, before", p, SIZE / 2, 1);
		check("the child's own", p + SIZE / 2, PAGE, 2);
		check_from("the child's, behind", p, SIZE / 2 + PAGE, SIZE, 1);
		_exit(victim_failed);
	}
	close(channel[0]);

	victim_ready();
	if (sabotage)
		p[12345] ^= 1;
	victim_wait();

	close(channel[1]);
	check("swapped out", p, SIZE, 1);
	if (waitpid(child, &status, 0) != child || status != 0)
		victim_fail("the child ended with %#x", status);
}

/* How many pages are the process's own: neither the kernel's page of zeros nor nothing. */
static size_t own(const char *p, size_t size)
{
	enum { ZERO_PAGE = 24 };
	size_t pages = size / PAGE, n = 0;
	uint64_t *entries = malloc(8 * pages), flags;
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		victim_die("/proc/kpageflags");
	pagemap(getpid(), p, entries, pages);
	for (size_t i = 0; i < pages; i++) {
		if (!(entries[i] >> PRESENT & 1)) {
			n += entries[i] >> SWAPPED & 1;
			continue;
		}
		if ((entries[i] & PFN) == 0 || pread(fd, &flags, 8, (entries[i] & PFN) * 8) != 8)
			victim_die("flags of a page");
		n += !(flags >> ZERO_PAGE & 1);
	}
	close(fd);
	free(entries);
	return n;
}

static void zero(void)
{
	enum { SIZE = 16 << 20, EVERY = 64 * PAGE };
	char *small = map(SIZE), *large = map(2 * HUGE);

	advise(small, SIZE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < SIZE; i += PAGE)
		*(volatile char *)(small + i);
	for (size_t i = 0; i < SIZE; i += EVERY)
		small[i] = i / EVERY + 1;
	madvise(large, 2 * HUGE, MADV_HUGEPAGE);
	for (size_t i = 0; i < 2 * HUGE; i += PAGE)
		*(volatile char *)(large + i);
	if (resident(small, SIZE) != SIZE / PAGE || own(small, SIZE) != SIZE / EVERY || own(large, 2 * HUGE) != 0)
		victim_die("%zu pages, %zu and %zu of them its own", resident(small, SIZE), own(small, SIZE), own(large, 2 * HUGE));

	victim_ready();
	if (sabotage)
		*(volatile char *)(small + 3 * PAGE) = 0;
	victim_wait();

	if (own(small, SIZE) != SIZE / EVERY)
		victim_fail("%zu pages are its own, not %d", own(small, SIZE), SIZE / EVERY);
	if (own(large, 2 * HUGE) != 0)
		victim_fail("%zu pages of what was never written are its own", own(large, 2 * HUGE));
	for (size_t i = 0; i < SIZE; i++)
		if (small[i] != (char)(i % EVERY == 0 ? i / EVERY + 1 : 0)) {
			victim_fail("byte %zu has changed", i);
			break;
		}
	check_zero("what was never written", large, 2 * HUGE);
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

enum { FAMILY = 3, SHARED = 4 << 20 };

/* How many pages the family has together: those that several have count once. */
static size_t together(const char *p, const pid_t *family)
{
	enum { EACH = SHARED / PAGE };
	uint64_t *all = malloc(8 * FAMILY * EACH);
	size_t n = 0;

	for (int i = 0; i < FAMILY; i++)
		pagemap(family[i], p, all + i * EACH, EACH);
	for (size_t i = 0; i < FAMILY * EACH; i++) {
		if (!(all[i] >> PRESENT & 1) || (all[i] & PFN) == 0)
			victim_die("page %zu is not there, or is not shown", i % EACH);
		all[i] &= PFN;
	}
	qsort(all, FAMILY * EACH, 8, ascending);
	for (size_t i = 0; i < FAMILY * EACH; i++)
		n += i == 0 || all[i] != all[i - 1];
	free(all);
	return n;
}

/*
 * The descendants, the first one on. Each writes some pages, in which it has its number, forks the next, tells the first
 * parent its pid, and waits for the end.
 */
static void descend(char *p, int up, int end)
{
	enum { EVERY = 16 * PAGE };
	uint64_t *words = (uint64_t *)p;
	pid_t pid, child = 0;
	int number = 0, status;
	char byte;

	do {
		number++;
		for (size_t i = number * PAGE; i < SHARED; i += EVERY)
			words[i / sizeof(uint64_t)] = number;
		child = number + 1 < FAMILY ? fork() : -1;
	} while (child == 0);
	pid = getpid();
	if (write(up, &pid, sizeof(pid)) != sizeof(pid) || read(end, &byte, 1) != 0)
		_exit(1);
	for (size_t i = 0; i < SHARED / sizeof(uint64_t); i++) {
		size_t which = i / WORDS % 16;
		uint64_t want = i % WORDS == 0 && which >= 1 && which <= (size_t)number ? which : victim_word(1, i);

		if (words[i] != want) {
			victim_fail("descendant %d: word %zu has changed", number, i);
			break;
		}
	}
	if (child > 0 && (waitpid(child, &status, 0) != child || status != 0))
		victim_failed = 1;
	_exit(victim_failed);
}

static void shared(void)
{
	enum { OWN = SHARED / PAGE / 16 };
	char *p = map(SHARED);
	int up[2], end[2], status;
	pid_t family[FAMILY] = { getpid() };

	advise(p, SHARED, MADV_NOHUGEPAGE);
	fill(p, SHARED, 1);
	if (pipe(up) || pipe(end))
		victim_die("pipe");
	pid_t child = fork();
	if (child == 0) {
		close(end[1]);
		descend(p, up[1], end[0]);
	}
	for (int i = 1; i < FAMILY; i++)
		if (read(up[0], &family[i], sizeof(pid_t)) != sizeof(pid_t))
			victim_die("a descendant has not begun");
	/* Each descendant has written a page of sixteen; what the child wrote the grandchild has too. */
	if (together(p, family) != SHARED / PAGE + 2 * OWN)
		victim_die("%zu pages in all", together(p, family));

	victim_ready();
	if (sabotage)
		((volatile char *)p)[3 * PAGE] = p[3 * PAGE];
	victim_wait();

	if (together(p, family) != SHARED / PAGE + 2 * OWN)
		victim_fail("%zu pages in all, not %d", together(p, family), SHARED / PAGE + 2 * OWN);
	check("the parent's", p, SHARED, 1);
	close(end[1]);
	if (waitpid(child, &status, 0) != child || status != 0)
		victim_fail("the child ended with %#x", status);
}

int main(int argc, char **argv)
{
	const char *what;

	victim_init(argc, argv);
	what = victim_argc > 1 ? victim_argv[1] : "";
	if (strcmp(what, "huge") == 0)
		huge();
	else if (strcmp(what, "merged") == 0)
		merged(victim_argc > 2);
	else if (strcmp(what, "swapped") == 0)
		swapped();
	else if (strcmp(what, "zero") == 0)
		zero();
	else if (strcmp(what, "shared") == 0)
		shared();
	else
		victim_die("no such kind of pages");
	victim_ok();
}
