/*
 * mem [MEGABYTES]: memory of every common kind, filled with words that can be computed again (16 MB of each of the two
 * large kinds): private, shared, read-only, without access, a private file mapping with pages of its own and pages of
 * the file's, pages that were never touched, and the stack.
 */
#include "victim.h"
#include <sys/mman.h>

enum { SEED_PRIVATE = 1, SEED_SHARED, SEED_READONLY, SEED_NOACCESS, SEED_FILE, SEED_OWN, SEED_STACK };

static size_t page;

static void *map(size_t size, int prot, int flags, int fd)
{
	void *p = mmap(NULL, size, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		victim_die("mmap of %zu bytes", size);
	return p;
}

static void fill(uint64_t *words, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size / sizeof(*words); i++)
		words[i] = victim_word(seed, i);
}

static void check(const char *what, const uint64_t *words, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size / sizeof(*words); i++) {
		if (words[i] != victim_word(seed, i)) {
			victim_fail("%s: byte %zu of %zu has changed", what, i * sizeof(*words), size);
			return;
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t *private, *shared, *readonly, *noaccess, *file, *untouched, stack[512];
	size_t size;
	char name[] = "mem-XXXXXX";
	int fd;

	victim_init(argc, argv);
	page = sysconf(_SC_PAGESIZE);
	size = victim_number(1, 16) << 20;

	private = map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(private, size, SEED_PRIVATE);
	shared = map(size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(shared, size, SEED_SHARED);
	readonly = map(4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(readonly, 4 * page, SEED_READONLY);
	noaccess = map(4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(noaccess, 4 * page, SEED_NOACCESS);
	if (mprotect(readonly, 4 * page, PROT_READ) || mprotect(noaccess, 4 * page, PROT_NONE))
		victim_die("mprotect");
	untouched = map(64 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	/* A file of four pages; the second page of the mapping becomes the process's own. */
	fd = mkstemp(name);
	if (fd < 0 || ftruncate(fd, 4 * page))
		victim_die("a file to map");
	file = map(4 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	fill(file, 4 * page, SEED_FILE);
	munmap(file, 4 * page);
	file = map(4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	close(fd);
	fill(file + page / sizeof(*file), page, SEED_OWN);
	fill(stack, sizeof(stack), SEED_STACK);

	victim_ready();
	if (sabotage)
		shared[size / sizeof(*shared) / 2] ^= 1;
	victim_wait();

	check("private", private, size, SEED_PRIVATE);
	check("shared", shared, size, SEED_SHARED);
	check("read-only", readonly, 4 * page, SEED_READONLY);
	if (mprotect(noaccess, 4 * page, PROT_READ))
		victim_fail("mprotect: %s", strerror(errno));
	else
		check("without access", noaccess, 4 * page, SEED_NOACCESS);
	for (size_t i = 0; i < 64 * page / sizeof(*untouched); i++)
		if (untouched[i]) {
			victim_fail("never touched: byte %zu is not zero", i * sizeof(*untouched));
			break;
		}
	check("file, the process's own page", file + page / sizeof(*file), page, SEED_OWN);
	for (size_t i = 2 * page / sizeof(*file); i < 4 * page / sizeof(*file); i++)
		if (file[i] != victim_word(SEED_FILE, i)) {
			victim_fail("file: byte %zu has changed", i * sizeof(*file));
			break;
		}
	check("stack", stack, sizeof(stack), SEED_STACK);
	if (mprotect(readonly, 4 * page, PROT_READ | PROT_WRITE))
		victim_fail("mprotect: %s", strerror(errno));
	unlink(name);
	victim_ok();
}
