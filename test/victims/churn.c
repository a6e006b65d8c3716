/*
 * churn: a small family that never rests. Threads of the first process fork children that exit, or execute this program
 * again, one of them from a thread that is not the first; make threads that end; map, fill, protect and unmap memory; sleep,
 * poll and wait for events with a timeout; wait for events, a futex and signals without one, which come from a child.
 * A second child, a subreaper, is left the orphans of its children. The check is that nobody got a status, a value or a
 * content that was not its own, that no call failed, with EINTR for one, that no signal was lost and none came twice, that
 * nobody slept or polled for too short a time. Asked, it says "rounds" and how often each has gone round: all must grow.
 */
#include "victim.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { FORK, EXEC, SPAWN, THREADS, MEMORY, SLEEP, POLL, EPOLL, EVENTS, FUTEX, SIGNALS, HANDLER, ORPHANS, KINDS };
static const char *const names[] = { "fork", "exec", "spawn", "threads", "memory", "sleep", "poll", "epoll", "events", "futex",
				     "signals", "handler", "orphans" };

static volatile uint64_t *rounds; /* shared with the children that count, by a pipe they write to */
static volatile int stopping;
static int events, words, silence[2], orphans[2], acks[2];
static pid_t sender, nursery;
static char *self;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void expect(pid_t pid, int status, const char *what)
{
	int got = 0;

	if (pid < 0) {
		victim_fail("%s: errno %d", what, errno);
		return;
	}
	if (waitpid(pid, &got, 0) != pid)
		victim_fail("%s: waitpid: errno %d", what, errno);
	else if (got != status << 8)
		victim_fail("%s: status %#x, want %#x", what, got, status << 8);
}

static void nap(long nanoseconds)
{
	struct timespec t = { 0, nanoseconds };

	nanosleep(&t, NULL);
}

static void *execute(void *number)
{
	execl(self, "churn", "leaf", number, NULL);
	_exit(99);
}

static void forks(long kind, uint64_t n)
{
	char number[8];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", (int)(n % 90 + 1));
	if (kind == SPAWN) {
		char *args[] = { "churn", "leaf", number, NULL }, *env[] = { NULL };

		if ((errno = posix_spawn(&pid, self, NULL, NULL, args, env)))
			pid = -1;
	} else {
		pid = fork();
	}
	if (pid == 0 && kind == FORK)
		_exit(n % 90 + 1);
	if (pid == 0) {
		pthread_t t;

		if (n % 3 == 0 && pthread_create(&t, NULL, execute, number) == 0)
			for (;;)
				pause();
		execute(number);
	}
	expect(pid, n % 90 + 1, names[kind]);
}

static void *ends(void *value)
{
	if ((long)value % 4 == 0)
		nap(1000000);
	return (void *)((long)value * 3);
}

static void threads(uint64_t n)
{
	pthread_t t[3];
	void *value;

	for (long i = 0; i < 3; i++)
		if (pthread_create(&t[i], NULL, ends, (void *)(n + i)))
			victim_die("pthread_create");
	for (long i = 0; i < 3; i++)
		if (pthread_join(t[i], &value) || (long)value != (long)(n + i) * 3)
			victim_fail("threads: a value is not its own");
}

static void memory(uint64_t n)
{
	size_t size = (n % 16 + 1) << 12;
	uint64_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		victim_die("mmap");
	for (size_t i = 0; i < size / 8; i += 64)
		p[i] = victim_word(n, i);
	if (mprotect(p, size, PROT_READ))
		victim_fail("memory: mprotect");
	nap(200000);
	for (size_t i = 0; i < size / 8; i += 64)
		if (p[i] != victim_word(n, i))
			victim_fail("memory: it has changed");
	if (munmap(p, size))
		victim_fail("memory: munmap");
}

/* A wait that must take 15 ms, and end by itself. */
static void timed(long kind)
{
	struct pollfd fd = { .fd = silence[0], .events = POLLIN };
	struct timespec t = { 0, 15000000 }, left = { 0 };
	double before = now(), took;
	int r = kind == SLEEP ? nanosleep(&t, &left) : poll(&fd, 1, 15);

	took = now() - before;
	if (r)
		victim_fail("%s: %d, errno %d", names[kind], r, errno);
	else if (took < 0.015 || took > 10)
		victim_fail("%s: took %.6f s", names[kind], took);
}

/* epoll_wait with a timeout fails with EINTR when it is stopped; its time must be kept all the same when it does not. */
static void epolls(void)
{
	static int fd = -1;
	struct epoll_event event;
	double before = now(), took;
	int r;

	if (fd < 0)
		fd = epoll_create1(EPOLL_CLOEXEC);
	r = epoll_wait(fd, &event, 1, 15);
	took = now() - before;
	if (r > 0 || (r < 0 && errno != EINTR) || (r == 0 && took < 0.0149))
		victim_fail("epoll: %d, errno %d, after %.6f s", r, errno, took);
}

static void waits(long kind)
{
	static int fd = -1;
	struct epoll_event event = { .events = EPOLLIN };
	uint64_t value;

	if (kind == FUTEX) {
		long r = syscall(SYS_futex, &words, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);

		if (r && errno != EAGAIN)
			victim_fail("futex: errno %d", errno);
		__atomic_store_n(&words, 0, __ATOMIC_SEQ_CST);
		return;
	}
	if (fd < 0) {
		fd = epoll_create1(EPOLL_CLOEXEC);
		epoll_ctl(fd, EPOLL_CTL_ADD, events, &event);
	}
	if (epoll_wait(fd, &event, 1, -1) != 1)
		victim_fail("events: errno %d", errno);
	else if (read(events, &value, sizeof(value)) != sizeof(value))
		victim_fail("events: read: errno %d", errno);
}

/* The values of the signals from the sender follow each other. */
static void received(long kind, const siginfo_t *info)
{
	static int last[KINDS];

	if (info->si_value.sival_int != ++last[kind] && !victim_failed)
		victim_fail("%s: signal %d came, want %d", names[kind], info->si_value.sival_int, last[kind]);
	rounds[kind]++;
	if (write(acks[1], "", 1) != 1)
		victim_fail("acks: errno %d", errno);
}

static void on_value(int signo, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)signo;
	(void)context;
	received(HANDLER, info);
	errno = saved;
}

static void signals(void)
{
	sigset_t set;
	siginfo_t info;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	if (sigwaitinfo(&set, &info) != SIGRTMIN + 1)
		victim_fail("signals: errno %d", errno);
	else if (info.si_code == SI_QUEUE)
		received(SIGNALS, &info);
}

static void *work(void *argument)
{
	long kind = (long)argument;

	for (uint64_t n = 1; !stopping; n++) {
		switch (kind) {
		case FORK: case EXEC: case SPAWN: forks(kind, n); break;
		case THREADS: threads(n); break;
		case MEMORY: memory(n); break;
		case SLEEP: case POLL: timed(kind); break;
		case EPOLL: epolls(); break;
		case EVENTS: case FUTEX: waits(kind); break;
		case SIGNALS: signals(); continue;
		}
		rounds[kind]++;
	}
	return NULL;
}

/* Sends two signals with the next value, and waits until both have come. */
static void send_signals(pid_t to)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int n = 1;; n++) {
		union sigval value = { .sival_int = n };
		char c;

		if (sigqueue(to, SIGRTMIN + 1, value) || sigqueue(to, SIGRTMIN + 2, value))
			_exit(1);
		for (int i = 0; i < 2; i++)
			if (read(acks[0], &c, 1) != 1)
				_exit(2);
		nap(500000);
	}
}

/* Has children that leave it their own. */
static void rear_orphans(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1))
		_exit(1);
	for (int n = 1;; n = n % 90 + 1) {
		int sum = 0, status;
		pid_t pid = fork();

		if (pid == 0) {
			setpgid(0, 0);
			if (fork() == 0) {
				nap(1000000);
				_exit(n + 1);
			}
			_exit(n);
		}
		for (int i = 0; i < 2; i++) {
			if (waitpid(-1, &status, 0) < 0)
				_exit(2);
			sum += WEXITSTATUS(status);
		}
		if (sum != 2 * n + 1)
			_exit(3);
		if (write(orphans[1], "", 1) != 1)
			_exit(4);
	}
}

static void setup(void)
{
	struct sigaction action = { .sa_sigaction = on_value, .sa_flags = SA_SIGINFO | SA_RESTART };
	static uint64_t counts[KINDS];
	pid_t parent = getpid();

	rounds = counts;
	self = realpath("/proc/self/exe", NULL);
	events = eventfd(0, EFD_CLOEXEC);
	if (!self || events < 0 || pipe2(silence, O_CLOEXEC) || pipe2(orphans, O_CLOEXEC) || pipe2(acks, O_CLOEXEC))
		victim_die("descriptors");
	fcntl(orphans[0], F_SETFL, O_NONBLOCK);
	sigaction(SIGRTMIN + 2, &action, NULL);
	if ((sender = fork()) == 0)
		send_signals(parent);
	if ((nursery = fork()) == 0)
		rear_orphans();
}

/* What the first thread does between its own signals: it wakes those who wait without a timeout, and counts for others. */
static void turn(void)
{
	struct timespec t = { 0, 2000000 };
	sigset_t mask = victim_open_mask();
	uint64_t one = 1;
	char many[64];
	ssize_t n;

	sigdelset(&mask, SIGRTMIN + 2);
	ppoll(NULL, 0, &t, &mask);
	if (write(events, &one, sizeof(one)) != sizeof(one))
		victim_fail("eventfd");
	__atomic_store_n(&words, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &words, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	n = read(orphans[0], many, sizeof(many));
	if (n > 0)
		rounds[ORPHANS] += n;
	if (waitpid(nursery, NULL, WNOHANG) || waitpid(sender, NULL, WNOHANG))
		victim_die("a child has ended");
	if (victim_asked_on) {
		char line[400] = "rounds";

		victim_asked_on = 0;
		for (int i = 0; i < KINDS; i++)
			snprintf(line + strlen(line), sizeof(line) - strlen(line), " %llu", (unsigned long long)rounds[i]);
		victim_say("%s", line);
	}
}

int main(int argc, char **argv)
{
	pthread_t workers[SIGNALS + 1];
	sigset_t own;

	if (argc == 3 && strcmp(argv[1], "leaf") == 0)
		return atoi(argv[2]);
	victim_init(argc, argv);
	sigemptyset(&own);
	sigaddset(&own, SIGRTMIN + 1);
	sigaddset(&own, SIGRTMIN + 2);
	/* posix_spawn blocks it for a moment. It is not ignored then, and wakes a thread that does not block it, with EINTR. */
	sigaddset(&own, SIGCHLD);
	sigprocmask(SIG_BLOCK, &own, NULL);
	setup();
	for (long i = 0; i <= SIGNALS; i++)
		if (pthread_create(&workers[i], NULL, work, (void *)i))
			victim_die("pthread_create");
	victim_ready();
	while (!victim_asked) {
		turn();
		if (sabotage && !victim_failed)
			kill(getpid(), SIGRTMIN + 2); /* one that the sender has not sent */
	}
	stopping = 1;
	pthread_kill(workers[SIGNALS], SIGRTMIN + 1); /* not from the sender, who may have nothing to send */
	for (int i = 0; i <= SIGNALS; i++)
		while (pthread_tryjoin_np(workers[i], NULL) == EBUSY)
			turn();
	kill(sender, SIGKILL);
	kill(nursery, SIGKILL);
	if (waitpid(sender, NULL, 0) != sender || waitpid(nursery, NULL, 0) != nursery)
		victim_fail("the children are gone");
	victim_ok();
}
