/*
 * scheduled: threads with a policy, a nice value, a priority, processors and an I/O priority of their own. With "criu" as
 * an argument it does not care for processors, I/O priorities and the nice values under real-time policies, which CRIU does
 * not save. What is compared is all set here, and nothing of it is what a program is started with.
 */
#include "victim.h"
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

#define IO_CLASS(class, level) ((class) << 13 | (level))

static struct want {
	struct attributes attributes;
	int io;
	int processor; /* the one that it may run on, or -1 */
	unsigned slack;
	volatile pid_t tid;
} want[] = {
	{ { .policy = SCHED_OTHER, .nice = 7 }, IO_CLASS(2, 6), -1, 50000, 0 },
	{ { .policy = SCHED_BATCH, .nice = 3 }, IO_CLASS(3, 0), 0, 77777, 0 },
	{ { .policy = SCHED_FIFO, .nice = 4, .priority = 5 }, IO_CLASS(1, 3), -1, 0, 0 },
	{ { .policy = SCHED_RR, .nice = -3, .priority = 9, .flags = 1 }, IO_CLASS(2, 1), 0, 0, 0 },
	{ { .policy = SCHED_IDLE, .nice = 6 }, IO_CLASS(2, 0), -1, 60000, 0 },
	{ { .policy = SCHED_OTHER, .nice = -4, .flags = 1 }, 0, -1, 50000, 0 },
};
#define THREADS (sizeof(want) / sizeof(want[0]))

static bool like_criu;
static pthread_barrier_t barrier;

static void set_up(struct want *w)
{
	w->tid = syscall(SYS_gettid);
	w->attributes.size = sizeof(w->attributes);
	if (w->slack)
		prctl(PR_SET_TIMERSLACK, w->slack);
	/* SCHED_IDLE and the real-time policies keep the nice value that was there: that of whoever starts the victim, without this. */
	if (setpriority(PRIO_PROCESS, w->tid, w->attributes.nice))
		victim_die("setpriority %d", w->attributes.nice);
	if (syscall(SYS_sched_setattr, 0, &w->attributes, 0))
		victim_die("sched_setattr, policy %u", w->attributes.policy);
	if (w->io && syscall(SYS_ioprio_set, 1, 0, w->io))
		victim_die("ioprio_set %#x", w->io);
	if (w->processor >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(w->processor, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			victim_die("sched_setaffinity");
	}
	w->io = syscall(SYS_ioprio_get, 1, 0);
}

static void *thread(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	set_up(arg);
	pthread_barrier_wait(&barrier);
	while (true)
		pause();
	return NULL;
}

static void check(const struct want *w)
{
	struct attributes now;
	bool realtime = w->attributes.priority > 0;
	cpu_set_t set;
	int io, nice;

	if (syscall(SYS_sched_getattr, w->tid, &now, sizeof(now), 0))
		victim_fail("sched_getattr: %s", strerror(errno));
	else if (now.policy != w->attributes.policy || now.priority != w->attributes.priority || (now.flags & 1) != w->attributes.flags)
		victim_fail("policy %u, priority %u, flags %#llx; not %u, %u, %#llx", now.policy, now.priority, (unsigned long long)now.flags,
			    w->attributes.policy, w->attributes.priority, (unsigned long long)w->attributes.flags);
	/* sched_getattr does not tell it of real-time policies. */
	nice = getpriority(PRIO_PROCESS, w->tid);
	if (nice != w->attributes.nice && !(realtime && like_criu))
		victim_fail("policy %u: nice %d, not %d", now.policy, nice, w->attributes.nice);
	if (like_criu)
		return;
	io = syscall(SYS_ioprio_get, 1, w->tid);
	if (io != w->io)
		victim_fail("I/O priority %#x, not %#x", io, w->io);
	if (sched_getaffinity(w->tid, sizeof(set), &set))
		victim_fail("sched_getaffinity: %s", strerror(errno));
	else if (w->processor >= 0 ? CPU_COUNT(&set) != 1 || !CPU_ISSET(w->processor, &set) :
				     CPU_COUNT(&set) != (int)sysconf(_SC_NPROCESSORS_ONLN))
		victim_fail("it may run on %d processors", CPU_COUNT(&set));
}

int main(int argc, char **argv)
{
	pthread_t id;

	victim_init(argc, argv);
	like_criu = victim_argc > 1 && strcmp(victim_argv[1], "criu") == 0;
	pthread_barrier_init(&barrier, NULL, THREADS);
	for (size_t i = 1; i < THREADS; i++)
		if (pthread_create(&id, NULL, thread, &want[i]))
			victim_die("pthread_create");
	set_up(&want[0]);
	pthread_barrier_wait(&barrier);

	victim_ready();
	if (sabotage)
		setpriority(PRIO_PROCESS, want[1].tid, 9);
	victim_wait();

	for (size_t i = 0; i < THREADS; i++)
		check(&want[i]);
	victim_ok();
}
