/*
 * posix: timers of timer_create of every kind: with numbers that have gaps, for a thread, without notification, not armed, of
 * the CPU's time of the process and of a thread. With "criu" as an argument it does not look at which thread that is, which CRIU
 * does not save.
 */
#include "victim.h"
#include <pthread.h>
#include <sys/syscall.h>

#define RT(n) (__SIGRTMIN + 2 + (n)) /* SIGRTMIN + n, as a constant */

struct spec {
	int clock, notify, signo;
	long interval, value; /* in seconds */
};

/* The system calls themselves, for the kernel's own numbers and SIGEV_THREAD_ID. */
static const struct spec specs[] = {
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, RT(1), 7, 5000 },
	{ CLOCK_REALTIME, SIGEV_NONE, 0, 0, 6000 },
	{ CLOCK_BOOTTIME, SIGEV_SIGNAL, RT(2), 0, 0 },
	{ CLOCK_MONOTONIC, SIGEV_THREAD_ID, RT(3), 9, 7000 },
	{ CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGALRM, 0, 8000 },
	{ CLOCK_THREAD_CPUTIME_ID, SIGEV_THREAD_ID, RT(4), 11, 9000 },
};
#define TIMERS (sizeof(specs) / sizeof(specs[0]))

static int ids[TIMERS];
static pid_t other;
static volatile int quick_on = -1; /* the thread that took the signal of the quick timer */
static volatile sig_atomic_t quick_value;
static pthread_barrier_t there;

static void on_quick(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)context;
	quick_value = info->si_value.sival_int;
	quick_on = syscall(SYS_gettid);
}

static void create(const struct spec *s, int *id, int value, pid_t thread)
{
	struct sigevent event = { .sigev_notify = s->notify, .sigev_signo = s->signo, .sigev_value.sival_int = value };
	struct itimerspec time = { { s->interval, 0 }, { s->value, 0 } };

	event._sigev_un._tid = thread;
	if (syscall(SYS_timer_create, s->clock, &event, id) || syscall(SYS_timer_settime, *id, 0, &time, NULL))
		victim_die("timer of clock %d", s->clock);
}

static void *thread(void *arg)
{
	sigset_t set;

	(void)arg;
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	other = syscall(SYS_gettid);
	create(&specs[5], &ids[5], 105, other);
	pthread_barrier_wait(&there);
	while (true)
		pause();
	return NULL;
}

static int64_t nanoseconds(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

/* The other thread sleeps, but for waking up after a restore: its time does not pass as this one's does, which computes. */
static void check_thread(void)
{
	struct itimerspec before, after;
	struct timespec start, now;

	if (syscall(SYS_timer_gettime, ids[5], &before))
		return;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	while (nanoseconds(&now) - nanoseconds(&start) < 3000000);
	if (syscall(SYS_timer_gettime, ids[5], &after) || nanoseconds(&before.it_value) - nanoseconds(&after.it_value) > 1500000)
		victim_fail("timer %d counts another thread's time", ids[5]);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_quick, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct sigevent none = { .sigev_notify = SIGEV_NONE };
	struct spec quick = { CLOCK_MONOTONIC, SIGEV_THREAD_ID, RT(5), 0, 0 };
	struct itimerspec now, soon = { { 0, 0 }, { 0, 20000000 } };
	int quick_id, gap, last;
	bool like_criu;
	pthread_t id;

	victim_init(argc, argv);
	like_criu = victim_argc > 1 && strcmp(victim_argv[1], "criu") == 0;
	if (sigaction(RT(5), &action, NULL))
		victim_die("sigaction");
	pthread_barrier_init(&there, NULL, 2);
	if (pthread_create(&id, NULL, thread, NULL))
		victim_die("pthread_create");
	pthread_barrier_wait(&there);
	for (size_t i = 0; i < TIMERS - 1; i++) {
		for (size_t n = 0; n != i * 3; n++) /* gaps between the numbers */
			if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &none, &gap) || syscall(SYS_timer_delete, gap))
				victim_die("a gap");
		create(&specs[i], &ids[i], 100 + i, specs[i].notify == SIGEV_THREAD_ID ? other : 0);
	}
	create(&quick, &quick_id, 777, other);

	victim_ready();
	if (sabotage)
		syscall(SYS_timer_delete, ids[1]);
	victim_wait();

	for (size_t i = 0; i < TIMERS; i++) {
		const struct spec *s = &specs[i];

		if (syscall(SYS_timer_gettime, ids[i], &now)) {
			victim_fail("timer %d is not there: %s", ids[i], strerror(errno));
			continue;
		}
		if (now.it_interval.tv_sec != s->interval || now.it_interval.tv_nsec != 0)
			victim_fail("timer %d has the interval %ld.%09ld, not %ld", ids[i], (long)now.it_interval.tv_sec, now.it_interval.tv_nsec, s->interval);
		if (s->value == 0 ? now.it_value.tv_sec || now.it_value.tv_nsec : now.it_value.tv_sec < s->value - 500 || now.it_value.tv_sec >= s->value)
			victim_fail("timer %d has %ld s left of %ld", ids[i], (long)now.it_value.tv_sec, s->value);
	}
	if (!like_criu)
		check_thread();
	/* A timer for a thread goes off there, with its value. */
	if (syscall(SYS_timer_settime, quick_id, 0, &soon, NULL))
		victim_fail("the timer for a thread cannot be set: %s", strerror(errno));
	for (int n = 0; n < 500 && quick_on < 0; n++)
		nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	if (quick_on != other || quick_value != 777)
		victim_fail("the timer for thread %d went off in %d with the value %d", other, quick_on, (int)quick_value);
	/* The number of the next is free. */
	if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &none, &last))
		victim_fail("no more timers can be made: %s", strerror(errno));
	for (size_t i = 0; i < TIMERS; i++)
		if (last == ids[i])
			victim_fail("timer %d is given twice", last);
	victim_ok();
}
