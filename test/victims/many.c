/*
 * many KIND N: N of one kind, for what grows with their number: pages of memory, pages that lie apart, mappings, files,
 * threads, processes, KiB of environment, or GiB of address space of which little is used.
 */
#include "victim.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { SEED = 7, VALUE = 64 << 10 };

static size_t page;
static long count;
static char *memory;

static char *map(size_t size, int flags)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (p == MAP_FAILED)
		victim_die("mmap of %zu bytes", size);
	return p;
}

/* Marks a page: most of it differs from every other. */
static void mark(char *at, uint64_t number)
{
	uint64_t *words = (uint64_t *)at;

	for (size_t i = 0; i < page / sizeof(*words); i += 8)
		words[i] = victim_word(SEED + i, number);
}

static void check(const char *at, uint64_t number)
{
	const uint64_t *words = (const uint64_t *)at;

	for (size_t i = 0; i < page / sizeof(*words); i += 8) {
		if (words[i] != victim_word(SEED + i, number)) {
			victim_fail("page %llu has changed", (unsigned long long)number);
			return;
		}
	}
}

static void spoil(void)
{
	if (sabotage)
		memory[0]++;
}

/* Pages, every step-th of them. */
static void pages(size_t step)
{
	memory = map(count * step * page, 0);
	for (long i = 0; i < count; i++)
		mark(memory + i * step * page, i);
	victim_ready();
	spoil();
	victim_wait();
	for (long i = 0; i < count; i++)
		check(memory + i * step * page, i);
}

/* Mappings that are neighbours and differ, so that the kernel keeps them apart. */
static void mappings(void)
{
	memory = map(count * page, 0);
	for (long i = 0; i < count; i++) {
		char *at = memory + i * page;

		mark(at, i);
		if (i % 2 && mprotect(at, page, PROT_READ))
			victim_die("mprotect of mapping %ld", i);
	}
	victim_ready();
	spoil();
	victim_wait();
	for (long i = 0; i < count; i++)
		check(memory + i * page, i);
}

/* Gibibytes of which the first and the last page and one in the middle are used. */
static void sparse(void)
{
	size_t size = (size_t)count << 30, at[] = { 0, size / 2, size - page };

	memory = map(size, MAP_NORESERVE);
	for (int i = 0; i < 3; i++)
		mark(memory + at[i], i);
	victim_ready();
	spoil();
	victim_wait();
	for (int i = 0; i < 3; i++)
		check(memory + at[i], i);
}

/* Open files, each second one a duplicate of the one before. */
static void files(void)
{
	struct rlimit limit = { count + 64, count + 64 };
	int first = -1, fd;

	if (setrlimit(RLIMIT_NOFILE, &limit))
		victim_die("%ld files", count);
	for (long i = 0; i < count; i++) {
		fd = i % 2 ? dup(first + i - 1) : open("/dev/null", i % 4 ? O_RDWR | O_APPEND : O_RDONLY | O_CLOEXEC);
		if (first < 0)
			first = fd;
		if (fd < 0 || fd != first + i)
			victim_die("file %ld", i);
	}
	victim_ready();
	if (sabotage)
		close(first);
	victim_wait();
	for (long i = 0; i < count; i++) {
		int flags = fcntl(first + i, F_GETFL), want = i / 2 % 2 ? O_RDWR | O_APPEND : O_RDONLY;

		if (flags < 0 || (flags & (O_ACCMODE | O_APPEND)) != want)
			victim_fail("file %ld has flags %#x", i, flags);
		if (fcntl(first + i, F_GETFD) != (i % 4 ? 0 : FD_CLOEXEC))
			victim_fail("file %ld is closed on exec, or not, as it was not before", i);
	}
}

struct worker {
	pthread_t thread;
	pid_t tid;
	int index;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long started;
static bool stopping;

static void *work(void *arg)
{
	struct worker *w = arg;

	pthread_mutex_lock(&lock);
	w->tid = syscall(SYS_gettid);
	started++;
	pthread_cond_broadcast(&changed);
	while (!stopping)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	if (syscall(SYS_gettid) != w->tid)
		victim_fail("thread %d has another id", w->index);
	return w;
}

static void threads(void)
{
	struct worker *workers = calloc(count, sizeof(*workers));
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (long i = 0; i < count; i++) {
		workers[i].index = i;
		if (pthread_create(&workers[i].thread, &attr, work, &workers[i]))
			victim_die("thread %ld", i);
	}
	pthread_mutex_lock(&lock);
	while (started < count)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	victim_ready();
	if (sabotage)
		workers[0].tid++;
	victim_wait();
	pthread_mutex_lock(&lock);
	stopping = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	for (long i = 0; i < count; i++) {
		void *result = NULL;

		if (pthread_join(workers[i].thread, &result) || result != &workers[i])
			victim_fail("the end of thread %ld is not its own", i);
	}
}

/* Children that wait like their parent, and end with the status that is their number. */
static void processes(void)
{
	pid_t *children = calloc(count, sizeof(*children));

	for (long i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0)
			victim_die("process %ld", i);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			memory = map(page, 0);
			mark(memory, i);
			victim_wait();
			check(memory, i);
			_exit(victim_failed ? 255 : i % 100);
		}
		children[i] = pid;
	}
	victim_ready();
	victim_wait();
	for (long i = 0; i < count; i++) {
		int status;

		kill(children[i], SIGUSR1);
		if (waitpid(children[i], &status, 0) != children[i] || !WIFEXITED(status) ||
		    WEXITSTATUS(status) != i % 100 + sabotage)
			victim_fail("child %ld ended with status %#x", i, status);
	}
}

/* The program itself, once more, with variables of 64 KiB each. */
static void environment(char **argv)
{
	long variables = (count * 1024 + VALUE - 1) / VALUE;
	char name[32];

	if (!getenv("MANY")) {
		char *value = calloc(1, VALUE);

		setenv("MANY", "", 1);
		for (long i = 0; i < variables; i++) {
			snprintf(name, sizeof(name), "MANY%ld", i);
			memset(value, 'a' + i % 26, VALUE - 16);
			setenv(name, value, 1);
		}
		execv("/proc/self/exe", argv);
		victim_die("exec with %ld KiB of environment", count);
	}
	victim_ready();
	if (sabotage)
		unsetenv("MANY0");
	victim_wait();
	for (long i = 0; i < variables; i++) {
		const char *value;

		snprintf(name, sizeof(name), "MANY%ld", i);
		value = getenv(name);
		if (!value || strlen(value) != VALUE - 16 || value[VALUE / 2] != 'a' + i % 26)
			victim_fail("the variable %s has changed", name);
	}
}

int main(int argc, char **argv)
{
	const char *kind;

	victim_init(argc, argv);
	page = sysconf(_SC_PAGESIZE);
	kind = victim_argc > 1 ? victim_argv[1] : "pages";
	count = victim_number(2, 1);
	if (count < 1)
		victim_die("%ld of a kind", count);
	if (!strcmp(kind, "pages"))
		pages(1);
	else if (!strcmp(kind, "apart"))
		pages(2);
	else if (!strcmp(kind, "mappings"))
		mappings();
	else if (!strcmp(kind, "sparse"))
		sparse();
	else if (!strcmp(kind, "files"))
		files();
	else if (!strcmp(kind, "threads"))
		threads();
	else if (!strcmp(kind, "processes"))
		processes();
	else if (!strcmp(kind, "environment"))
		environment(argv);
	else
		victim_die("there is no kind %s", kind);
	victim_ok();
}
