/*
 * vmas [names | lockfault | lockall ...]: mappings of every private kind and shared ones of a file, each with advice, locks and protections of
 * its own. The check is that the kernel says the same of each as before (the head and VmFlags of smaps), that the content is what
 * it was, and that guard pages, stacks that grow and pages that children do not get behave. With "names" some have names,
 * with "lockfault" one is locked as it is touched, and with "lockall" all is locked that comes, which images of CRIU have no
 * place for.
 */
#include "victim.h"
#include <setjmp.h>
#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#include <sys/prctl.h>

enum { PAGES = 8, MOST = 40 };

struct region {
	const char *name;
	char *start;
	size_t size;
	int prot;
	bool filled;
	char *before; /* what smaps says */
};

static struct region regions[MOST];
static int count;
static size_t page;
static bool guards, lockall;

static struct region *add(const char *name, void *start, size_t size, int prot, bool filled)
{
	struct region *r = &regions[count++];

	if (count > MOST)
		victim_die("too many regions");
	*r = (struct region){ .name = name, .start = start, .size = size, .prot = prot, .filled = filled };
	return r;
}

static void fill(struct region *r)
{
	uint64_t *words = (uint64_t *)r->start;

	for (size_t i = 0; i < r->size / sizeof(*words); i++)
		words[i] = victim_word(r - regions, i);
	r->filled = true;
}

/* A region of anonymous memory between two pages that nobody may touch, so that it is not merged with its neighbours. */
static char *place(size_t size)
{
	char *p = mmap(NULL, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		victim_die("mmap");
	return p + page;
}

static struct region *map(const char *name, int flags, int fd, off_t offset)
{
	char *at = place(PAGES * page);
	char *p = mmap(at, PAGES * page, PROT_READ | PROT_WRITE, flags | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, offset);

	if (p != at)
		victim_die("mmap of %s", name);
	return add(name, p, PAGES * page, PROT_READ | PROT_WRITE, false);
}

static struct region *anonymous(const char *name, int flags)
{
	struct region *r = map(name, MAP_PRIVATE | flags, -1, 0);

	fill(r);
	return r;
}

static void protect(struct region *r, int prot)
{
	r->prot = prot;
	if (mprotect(r->start, r->size, prot))
		victim_die("mprotect of %s", r->name);
}

static void advised(const char *name, int advice)
{
	struct region *r = anonymous(name, 0);

	if (madvise(r->start, r->size, advice))
		victim_die("madvise of %s", name);
}

/* What smaps says of a region: heads and flags of its mappings. */
static char *look(const struct region *r)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	char line[1024], *text = calloc(1, 4096);
	bool in = false;

	if (!smaps || !text)
		victim_die("smaps");
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long start, end;
		char *sd;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			in = start < (unsigned long)r->start + r->size && end > (unsigned long)r->start;
			if (in)
				strncat(text, line, 4095 - strlen(text));
		} else if (in && strncmp(line, "VmFlags:", 8) == 0) {
			sd = strstr(line, "sd ");
			if (sd)
				memmove(sd, sd + 3, strlen(sd + 3) + 1);
			strncat(text, line, 4095 - strlen(text));
		}
	}
	fclose(smaps);
	return text;
}

static sigjmp_buf escape;
static volatile sig_atomic_t touching;

static void on_fault(int signo)
{
	if (!touching)
		victim_die("signal %d", signo);
	siglongjmp(escape, signo);
}

/* The signal that reading a byte ends with, 0 for none. */
static int touch(const char *p)
{
	int signo = sigsetjmp(escape, 1);

	touching = 1;
	if (signo == 0)
		*(volatile const char *)p;
	touching = 0;
	return signo;
}

static void check_content(struct region *r)
{
	const uint64_t *words = (uint64_t *)r->start;

	if (!(r->prot & PROT_READ) && mprotect(r->start, r->size, PROT_READ | PROT_WRITE)) {
		victim_fail("%s: mprotect", r->name);
		return;
	}
	for (size_t i = 0; i < r->size / sizeof(*words); i++) {
		uint64_t want = r->filled ? victim_word(r - regions, i) : 0;

		if (words[i] != want) {
			victim_fail("%s: word %zu has changed", r->name, i);
			return;
		}
	}
}

static struct region *special[4]; /* that have content of their own */
enum { GUARDED, GROWS, COW, SHORT };

static int temporary(size_t size)
{
	char name[] = "vmas-XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size))
		victim_die("a file");
	return fd;
}

static void files(void)
{
	int fd = temporary(24 * page);
	struct region *r = map("shared of a file", MAP_SHARED, fd, 2 * page);

	fill(r);
	protect(map("shared of a file, not writable", MAP_SHARED, fd, 12 * page), PROT_READ);
	special[COW] = map("private of a file, some pages its own", MAP_PRIVATE, fd, 2 * page);
	special[COW]->start[3 * page] = 'x';
	protect(special[COW], PROT_READ);
	close(fd);
	fd = temporary(2 * page);
	special[SHORT] = map("longer than its file", MAP_PRIVATE, fd, 0);
	special[SHORT]->start[0] = 'y';
	close(fd);
}

static void check_files(void)
{
	struct region *shared = special[COW] - 2;

	for (size_t i = 0; i < PAGES * page; i++) {
		char want = i == 3 * page ? 'x' : shared->start[i];

		if (special[COW]->start[i] != want) {
			victim_fail("private of a file: byte %zu has changed", i);
			break;
		}
	}
	if (special[SHORT]->start[0] != 'y' || special[SHORT]->start[page] != 0)
		victim_fail("longer than its file: changed");
	if (touch(special[SHORT]->start + 2 * page) != SIGBUS)
		victim_fail("longer than its file: there is something behind the end");
	/* What is written to a shared mapping is still in the file for the other mapping. */
	shared->start[page] ^= 1;
	if (special[COW]->start[page] != shared->start[page])
		victim_fail("shared of a file: it is another file now");
	shared->start[page] ^= 1;
}

static void guarded(void)
{
	struct region *r = anonymous("with guard pages", 0);

	special[GUARDED] = r;
	guards = madvise(r->start + 2 * page, 2 * page, MADV_GUARD_INSTALL) == 0;
}

static void grows(void)
{
	char *at = place(600 * page) + 600 * page - 2 * page;
	char *p;

	munmap(at - 400 * page, 400 * page);
	p = mmap(at, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
	if (p != at)
		victim_die("mmap of a stack");
	special[GROWS] = add("a stack that grows", p, 2 * page, PROT_READ | PROT_WRITE, false);
	fill(special[GROWS]);
}

static void setup(void)
{
	struct region *r;

	protect(anonymous("read-only", 0), PROT_READ);
	protect(anonymous("without access", 0), PROT_NONE);
	protect(anonymous("executable", 0), PROT_READ | PROT_EXEC);
	protect(anonymous("to write and execute", 0), PROT_READ | PROT_WRITE | PROT_EXEC);
	protect(anonymous("write only", 0), PROT_WRITE);
	anonymous("not reserved", MAP_NORESERVE);
	map("never touched", MAP_PRIVATE, -1, 0);
	r = map("zero pages", MAP_PRIVATE, -1, 0);
	for (size_t i = 0; i < r->size; i += page)
		touch(r->start + i);
	r = anonymous("cut in three", 0);
	if (mprotect(r->start + 2 * page, page, PROT_READ) || madvise(r->start + 5 * page, page, MADV_DONTDUMP))
		victim_die("cut in three");
	advised("not for children", MADV_DONTFORK);
	advised("wiped in children", MADV_WIPEONFORK);
	advised("not for core dumps", MADV_DONTDUMP);
	advised("read in sequence", MADV_SEQUENTIAL);
	advised("read at random", MADV_RANDOM);
	advised("with huge pages", MADV_HUGEPAGE);
	advised("without huge pages", MADV_NOHUGEPAGE);
	advised("to be merged", MADV_MERGEABLE);
	r = anonymous("locked", 0);
	if (mlock(r->start, r->size))
		victim_die("mlock");
	r = anonymous("locked and read-only", 0);
	if (mlock(r->start, r->size))
		victim_die("mlock");
	protect(r, PROT_READ);
	for (int i = 1; i < victim_argc; i++) {
		if (strcmp(victim_argv[i], "lockall") == 0) {
			lockall = true;
			continue;
		}
		r = anonymous(victim_argv[i], 0);
		if (strcmp(victim_argv[i], "names") == 0 ? prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, r->start, r->size, "of the victim") :
							   mlock2(r->start, r->size, MLOCK_ONFAULT))
			victim_die("%s", victim_argv[i]);
	}
	guarded();
	grows();
	files();
}

static void check_special(void)
{
	char *below = special[GROWS]->start;
	pid_t child;
	int status;

	if (guards && (touch(special[GUARDED]->start + 2 * page) != SIGSEGV || touch(special[GUARDED]->start + 4 * page - 1) != SIGSEGV ||
		       touch(special[GUARDED]->start + 4 * page) != 0))
		victim_fail("with guard pages: they are not where they were");
	if (touch(below - page) != 0)
		victim_fail("a stack that grows: it does not");
	child = fork();
	if (child == 0) {
		for (int i = 0; i < count; i++) {
			int got = strcmp(regions[i].name, "not for children") == 0 ? touch(regions[i].start) == SIGSEGV :
				  strcmp(regions[i].name, "wiped in children") == 0 ? regions[i].start[0] == 0 :
										      1;
			if (!got)
				_exit(i + 1);
		}
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status != 0)
		victim_fail("a child found its memory to be otherwise: status %#x", status);
}

int main(int argc, char **argv)
{
	struct sigaction fault = { .sa_handler = on_fault };

	victim_init(argc, argv);
	page = sysconf(_SC_PAGESIZE);
	if (sigaction(SIGSEGV, &fault, NULL) || sigaction(SIGBUS, &fault, NULL))
		victim_die("sigaction");
	setup();
	if (lockall && mlockall(MCL_CURRENT | MCL_FUTURE))
		victim_die("mlockall");
	for (int i = 0; i < count; i++)
		regions[i].before = look(&regions[i]);

	victim_ready();
	if (sabotage)
		madvise(regions[count - 5].start, page, MADV_DONTDUMP);
	victim_wait();

	for (int i = 0; i < count; i++) {
		char *now = look(&regions[i]);

		if (strcmp(now, regions[i].before))
			victim_fail("%s: was\n%sand is\n%s", regions[i].name, regions[i].before, now);
	}
	check_files();
	for (int i = 0; i < count; i++) {
		bool own = false;

		for (int j = 0; j < 4; j++)
			own = own || (special[j] == &regions[i] && j != GROWS);
		if (!own)
			check_content(&regions[i]);
	}
	if (lockall) {
		struct region *r = map("mapped afterwards", MAP_PRIVATE, -1, 0);

		if (!strstr(look(r), " lo "))
			victim_fail("what is mapped is not locked any more");
	}
	check_special();
	victim_ok();
}
