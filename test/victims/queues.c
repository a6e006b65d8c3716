/*
 * queues: signals that wait, for the process and for threads, with all that is known of each: sent by kill, with values, by a
 * child's death, by timers, by the kernel; and all dispositions. With "trap" as an argument SIGTRAP is among them, and ignored.
 */
#include "victim.h"
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>

struct kernel_action {
	uint64_t handler, flags, restorer, mask;
};

static struct kernel_action actions[NSIG];
static pid_t child, other;
static pthread_barrier_t there, asked, answered;
static bool trap;

static void handler(int signo)
{
	(void)signo;
}

static void get(int signo, struct kernel_action *action)
{
	memset(action, 0, sizeof(*action));
	if (signo != SIGKILL && signo != SIGSTOP && syscall(SYS_rt_sigaction, signo, NULL, action, 8))
		victim_die("rt_sigaction %d", signo);
}

/* Something else for each signal, as far as nothing comes of it. */
static void dispositions(void)
{
	for (int signo = 1; signo < NSIG - 1; signo++) {
		struct sigaction a = { .sa_handler = handler };

		if (signo == SIGKILL || signo == SIGSTOP || signo == SIGUSR1 || signo == SIGUSR2 || signo == 32 || signo == 33)
			continue;
		if (signo % 7 == 3)
			a.sa_handler = SIG_IGN;
		if (signo % 7 == 5)
			a.sa_handler = SIG_DFL;
		if (signo == SIGTRAP)
			a.sa_handler = trap ? SIG_IGN : SIG_DFL;
		if (signo == SIGCHLD)
			a.sa_handler = handler;
		a.sa_flags = (signo % 2 ? SA_RESTART : 0) | (signo % 3 ? SA_NODEFER : 0) | (signo % 5 ? 0 : SA_RESETHAND) |
			     (signo == SIGCHLD ? SA_NOCLDSTOP : 0);
		sigemptyset(&a.sa_mask);
		for (int other = 1; other < NSIG; other++)
			if (other != 32 && other != 33 && (signo * other) % 11 == 4)
				sigaddset(&a.sa_mask, other);
		if (sigaction(signo, &a, NULL))
			victim_die("sigaction %d", signo);
	}
	for (int signo = 1; signo < NSIG; signo++)
		get(signo, &actions[signo]);
}

static bool pending(int signo)
{
	sigset_t set;

	sigpending(&set);
	return sigismember(&set, signo) == 1;
}

static void queue(pid_t thread, int signo, int value)
{
	siginfo_t info = { .si_signo = signo, .si_code = SI_QUEUE };

	info.si_pid = getpid();
	info.si_uid = 4711;
	info.si_value.sival_int = value;
	if (thread ? syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, signo, &info) : syscall(SYS_rt_sigqueueinfo, getpid(), signo, &info))
		victim_die("queue signal %d", signo);
}

/* Takes a signal that waits for the caller, and looks at what is known of it. */
static void take(const char *who, int signo, int code, pid_t pid, int value)
{
	siginfo_t info = { 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	if (syscall(SYS_rt_sigtimedwait, &set, &info, &(struct timespec){ 0 }, 8) != signo) { /* the C library's hides SI_TKILL */
		victim_fail("%s: signal %d does not wait any more", who, signo);
		return;
	}
	if (info.si_code != code)
		victim_fail("%s: signal %d has the code %d, not %d", who, signo, info.si_code, code);
	if (pid && info.si_pid != pid)
		victim_fail("%s: signal %d is from %d, not %d", who, signo, info.si_pid, pid);
	if (code == SI_QUEUE && (info.si_value.sival_int != value || info.si_uid != 4711))
		victim_fail("%s: signal %d has the value %d, not %d, of user %d", who, signo, info.si_value.sival_int, value, (int)info.si_uid);
	if (code == SI_TIMER && info.si_value.sival_int != value)
		victim_fail("%s: the timer's signal %d has the value %d, not %d", who, signo, info.si_value.sival_int, value);
	if (code == CLD_EXITED && signo == SIGCHLD && info.si_status != value)
		victim_fail("%s: a child has ended with %d, not %d", who, info.si_status, value);
}

static void none(const char *who)
{
	sigset_t set;

	sigpending(&set);
	for (int signo = 1; signo < NSIG; signo++)
		if (signo != SIGUSR1 && sigismember(&set, signo) == 1)
			victim_fail("%s: signal %d waits, too", who, signo);
}

static void *thread(void *arg)
{
	(void)arg;
	other = syscall(SYS_gettid);
	pthread_barrier_wait(&there);
	pthread_barrier_wait(&asked);
	take("thread", SIGHUP, SI_TKILL, getpid(), 0);
	take("thread", SIGRTMIN + 1, SI_QUEUE, getpid(), 31);
	take("thread", SIGRTMIN + 1, SI_QUEUE, getpid(), 32);
	if (trap)
		take("thread", SIGTRAP, SI_QUEUE, getpid(), 33);
	take("thread", SIGTERM, SI_USER, getpid(), 0); /* of the process: whoever takes it */
	pthread_barrier_wait(&answered);
	return NULL;
}

static void set_up(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 6, .sigev_value.sival_int = 99 };
	struct itimerspec soon = { { 0, 0 }, { 0, 1 } };
	struct itimerval alarm = { { 0, 0 }, { 0, 1 } };
	timer_t timer;

	if (kill(getpid(), SIGTERM) || kill(getpid(), SIGTSTP) || syscall(SYS_tgkill, getpid(), getpid(), SIGQUIT) ||
	    syscall(SYS_tgkill, getpid(), other, SIGHUP))
		victim_die("kill");
	for (int i = 0; i < 40; i++)
		queue(0, SIGRTMIN + 2 + i % 3, i);
	queue(getpid(), SIGRTMIN + 1, 21);
	queue(other, SIGRTMIN + 1, 31);
	queue(other, SIGRTMIN + 1, 32);
	if (trap) {
		queue(0, SIGTRAP, 13);
		queue(other, SIGTRAP, 33);
	}
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &soon, NULL) || setitimer(ITIMER_REAL, &alarm, NULL))
		victim_die("timers");
	child = fork();
	if (child == 0)
		_exit(17);
	while (!pending(SIGCHLD) || !pending(SIGRTMIN + 6) || !pending(SIGALRM))
		sched_yield();
}

int main(int argc, char **argv)
{
	struct kernel_action now;
	pthread_t id;
	sigset_t all;
	int status;

	victim_init(argc, argv);
	trap = victim_argc > 1 && strcmp(victim_argv[1], "trap") == 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_barrier_init(&there, NULL, 2);
	pthread_barrier_init(&asked, NULL, 2);
	pthread_barrier_init(&answered, NULL, 2);
	if (pthread_create(&id, NULL, thread, NULL))
		victim_die("pthread_create");
	pthread_barrier_wait(&there);
	dispositions();
	set_up();

	victim_ready();
	if (sabotage)
		signal(SIGRTMIN + 2, SIG_IGN); /* which empties its queue, too */
	{
		sigset_t asking; /* only this one ends the wait: the others stay where they are */
		siginfo_t info;

		sigemptyset(&asking);
		sigaddset(&asking, SIGUSR1);
		while (sigwaitinfo(&asking, &info) != SIGUSR1)
			;
	}

	for (int signo = 1; signo < NSIG; signo++) {
		get(signo, &now);
		if (memcmp(&now, &actions[signo], sizeof(now)))
			victim_fail("signal %d: handler %#llx, flags %#llx, mask %#llx; not %#llx, %#llx, %#llx", signo, (unsigned long long)now.handler,
				    (unsigned long long)now.flags, (unsigned long long)now.mask, (unsigned long long)actions[signo].handler,
				    (unsigned long long)actions[signo].flags, (unsigned long long)actions[signo].mask);
	}
	pthread_barrier_wait(&asked);
	pthread_barrier_wait(&answered);
	take("process", SIGTSTP, SI_USER, getpid(), 0);
	take("process", SIGQUIT, SI_TKILL, getpid(), 0);
	take("process", SIGCHLD, CLD_EXITED, child, 17);
	take("process", SIGALRM, SI_KERNEL, 0, 0);
	take("process", SIGRTMIN + 6, SI_TIMER, 0, 99);
	take("process", SIGRTMIN + 1, SI_QUEUE, getpid(), 21);
	if (trap)
		take("process", SIGTRAP, SI_QUEUE, getpid(), 13);
	for (int kind = 0; kind < 3; kind++)
		for (int i = kind; i < 40; i += 3)
			take("process", SIGRTMIN + 2 + kind, SI_QUEUE, getpid(), i);
	none("process");
	if (waitpid(child, &status, WNOHANG) != child || status != 17 << 8)
		victim_fail("the child that has ended is not there, or its status is %#x", status);
	victim_ok();
}
