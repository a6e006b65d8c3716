/*
 * execs [THREADS]: a child that executes this program over and over, each time from a thread that is not the first, while the
 * others, so many with the two, wait. The check is that it goes on doing so. Asked, it says "child", its pid and how often it has
 * begun.
 */
#include "victim.h"
#include <pthread.h>

enum { MOST = 64 };

static int file; /* has the number of rounds; both have it open */
static pid_t child;
static char number[16], threads[16];

static uint64_t rounds(void)
{
	uint64_t n = 0;

	if (pread(file, &n, sizeof(n), 0) < 0)
		victim_die("pread");
	return n;
}

static void open_file(void)
{
	const char *output = getenv("VICTIM_OUTPUT");
	char name[4096];

	snprintf(name, sizeof(name), "%s.rounds", output ? output : "/tmp/execs");
	file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (file < 0)
		victim_die("%s", name);
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
	uint64_t n;

	for (long i = 2; i < count; i++)
		start(idle);
	n = rounds() + 1;
	if (pwrite(file, &n, sizeof(n), 0) != sizeof(n))
		_exit(98);
	start(execute);
	idle(NULL);
	_exit(99);
}

static bool goes_on(void)
{
	uint64_t before = rounds();
	struct timespec t = { 0, 1000000 };

	for (int i = 0; i < 10000 && rounds() == before; i++) {
		if (waitpid(child, NULL, WNOHANG))
			return false;
		nanosleep(&t, NULL);
	}
	return rounds() != before;
}

int main(int argc, char **argv)
{
	sigset_t mask;
	long count;

	if (argc == 4 && !strcmp(argv[1], "round")) {
		snprintf(number, sizeof(number), "%s", argv[2]);
		snprintf(threads, sizeof(threads), "%s", argv[3]);
		file = atoi(number);
		live(atol(threads));
	}
	victim_init(argc, argv);
	count = victim_number(1, 2);
	if (count < 2 || count > MOST)
		victim_die("%ld threads", count);
	open_file();
	snprintf(number, sizeof(number), "%d", file);
	snprintf(threads, sizeof(threads), "%ld", count);
	child = fork();
	if (child < 0)
		victim_die("fork");
	if (child == 0)
		execute(NULL);
	while (!rounds())
		sched_yield();
	victim_ready();
	if (sabotage)
		kill(child, SIGKILL);
	mask = victim_open_mask();
	while (!victim_asked) {
		if (victim_asked_on) {
			victim_asked_on = 0;
			victim_say("child %d %llu", (int)child, (unsigned long long)rounds());
		}
		sigsuspend(&mask);
	}
	if (!goes_on())
		victim_fail("the child does not go on");
	kill(child, SIGKILL);
	victim_ok();
}
