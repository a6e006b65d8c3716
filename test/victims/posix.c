/*
 * posix: timers of timer_create of every kind: with numbers that have gaps, for a thread, without notification, not armed, of
 * the CPU's time of the process and of a thread. With "criu" as an argument it does not look at which thread that is, which CRIU
 * does not save. With "overruns" it has more of them, which have overrun, and looks at nothing but how often.
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

/*
 * Timers that have overrun: started in the past, they go off at once, and the signal that is taken then counts the intervals that
 * have passed. The intervals are so long that none ends, and short enough to have passed since the machine was started.
 */
static const struct spec late_specs[] = {
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, RT(6), 0, 3 }, /* here the value is how often */
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGALRM, 0, 1 },
	{ CLOCK_BOOTTIME, SIGEV_THREAD_ID, RT(6), 0, 5 },
	{ CLOCK_TAI, SIGEV_SIGNAL, RT(7), 0, 100 },
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGCHLD, 0, 2 },
};
#define LATE (sizeof(late_specs) / sizeof(late_specs[0]))

static int late_ids[LATE];
static struct itimerspec late_times[LATE];

static void start_late(size_t i, long interval)
{
	const struct spec *s = &late_specs[i];
	struct sigevent event = { .sigev_notify = s->notify, .sigev_signo = s->signo };
	struct itimerspec time = { { interval, 0 }, { 0, 0 } };
	struct timespec now;
	siginfo_t info;
	sigset_t set;

	event._sigev_un._tid = syscall(SYS_gettid);
	clock_gettime(s->clock, &now);
	/* It goes off next when half of an interval has passed. */
	time.it_value.tv_sec = now.tv_sec - s->value * interval - interval / 2;
	sigemptyset(&set);
	sigaddset(&set, s->signo);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) || syscall(SYS_timer_create, s->clock, &event, &late_ids[i]) ||
	    syscall(SYS_timer_settime, late_ids[i], TIMER_ABSTIME, &time, NULL) || sigwaitinfo(&set, &info) != s->signo ||
	    syscall(SYS_timer_gettime, late_ids[i], &late_times[i]))
		victim_die("timer of clock %d that has overrun", s->clock);
	if (info.si_overrun != s->value)
		victim_die("timer of clock %d has overrun %d times, not %ld", s->clock, info.si_overrun, s->value);
}

static void check_late(size_t i)
{
	const struct itimerspec *then = &late_times[i];
	struct itimerspec now;
	sigset_t waiting;
	int n = syscall(SYS_timer_getoverrun, late_ids[i]);

	if (n != late_specs[i].value)
		victim_fail("timer %d has overrun %d times, not %ld", late_ids[i], n, late_specs[i].value);
	if (syscall(SYS_timer_gettime, late_ids[i], &now) || nanoseconds(&now.it_interval) != nanoseconds(&then->it_interval) ||
	    nanoseconds(&now.it_value) > nanoseconds(&then->it_value) || nanoseconds(&now.it_value) == 0)
		victim_fail("timer %d goes off in %ld s, which were %ld s", late_ids[i], (long)now.it_value.tv_sec, (long)then->it_value.tv_sec);
	if (sigpending(&waiting) || sigismember(&waiting, late_specs[i].signo))
		victim_fail("a signal of timer %d waits", late_ids[i]);
}

/* The timer of index 2 is for a thread. */
static void *late_thread(void *interval)
{
	start_late(2, *(long *)interval);
	pthread_barrier_wait(&there);
	while (true)
		pause();
	return NULL;
}

/* Goes off every hundredth of a second, and is counted. */
static volatile sig_atomic_t ticks;

static void on_tick(int signo)
{
	(void)signo;
	ticks++;
}

static void overruns(void)
{
	struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = RT(8) };
	struct itimerspec often = { { 0, 10000000 }, { 0, 1 } };
	struct timespec up;
	long interval;
	int id, before;
	pthread_t thread_id;

	clock_gettime(CLOCK_MONOTONIC, &up);
	interval = up.tv_sec / 8; /* more than there are to be, with some to spare */
	for (size_t i = 0; i < LATE; i++)
		if (i != 2)
			start_late(i, interval);
	pthread_barrier_init(&there, NULL, 2);
	if (pthread_create(&thread_id, NULL, late_thread, &interval))
		victim_die("pthread_create");
	pthread_barrier_wait(&there);
	if (sigaction(RT(8), &action, NULL) || syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) ||
	    syscall(SYS_timer_settime, id, 0, &often, NULL))
		victim_die("a timer that goes off often");
	while (ticks < 3)
		pause();
	victim_ready();
	if (sabotage)
		syscall(SYS_timer_settime, late_ids[2], 0, &late_times[2], NULL);
	victim_wait();
	for (size_t i = 0; i < LATE; i++)
		check_late(i);
	before = ticks;
	for (int n = 0; n < 500 && ticks == before; n++)
		nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	if (ticks == before)
		victim_fail("a timer does not go off any more");
	victim_ok();
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
	if (victim_argc > 1 && strcmp(victim_argv[1], "overruns") == 0)
		overruns();
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
