/*
 * spawns: programs that are started one after the other, as shells and compilers do it, by posix_spawn, by vfork, and by vfork from a
 * second thread. Each ends with a status of its own, which is waited for: none may be missing, or another one's. A child of vfork that
 * executes nothing is among them.
 *
 * spawns stay: a child of vfork stays what it is until SIGUSR2 comes to it; it says "ready". Its parent waits for it.
 *
 * SIGUSR2 asks for "rounds N M".
 */
#include "victim.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/prctl.h>

enum { STATUSES = 251 };

extern char **environ;
static volatile unsigned long rounds, thread_rounds;
static _Atomic unsigned long waited;

/* What a program that was started does: nothing but to end with its status, while its parent lives. */
static _Noreturn void started(const char *status)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	_exit(atoi(status));
}

/* Starts this program again, which is to end with a status. */
static pid_t start(int round, char *status)
{
	char *argv[] = { "spawns", "status", status, NULL };
	pid_t pid;

	if (round % 3 == 0) {
		errno = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ);
		return errno ? -1 : pid;
	}
	pid = vfork();
	if (pid == 0) {
		if (round % 3 == 1)
			_exit(atoi(status));
		execv("/proc/self/exe", argv);
		_exit(255);
	}
	return pid;
}

static bool one_round(int round)
{
	int status = -1, want = round % STATUSES;
	char text[8];
	pid_t pid;

	snprintf(text, sizeof(text), "%d", want);
	pid = start(round, text);
	if (pid < 0) {
		victim_fail("round %d: nothing is started: %s", round, strerror(errno));
		return false;
	}
	if (waitpid(pid, &status, 0) != pid) {
		victim_fail("round %d: process %d: %s", round, pid, strerror(errno));
		return false;
	}
	if (status != want << 8) {
		victim_fail("round %d: process %d ended with %#x, and not with %#x", round, pid, status, want << 8);
		return false;
	}
	waited++;
	return true;
}

static void *spawn(void *unused)
{
	(void)unused;
	for (int round = 2; !victim_asked; round += 3, thread_rounds++) /* vfork and exec */
		if (!one_round(round))
			break;
	return NULL;
}

static void stay(void)
{
	sigset_t mask = victim_open_mask();
	int status = -1;
	pid_t pid = vfork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		victim_ready();
		while (!victim_asked_on)
			sigsuspend(&mask);
		_exit(77);
	}
	if (sabotage)
		waitpid(pid, NULL, 0);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 77 << 8)
		victim_fail("the child of vfork ended with %#x", status);
	victim_wait();
	victim_ok();
}

int main(int argc, char **argv)
{
	sigset_t asking, pending, old;
	pthread_t thread;

	if (argc == 3 && !strcmp(argv[1], "status"))
		started(argv[2]);
	victim_init(argc, argv);
	if (victim_argc > 1 && !strcmp(victim_argv[1], "stay"))
		stay();
	if (pthread_create(&thread, NULL, spawn, NULL))
		victim_die("thread");
	victim_ready();
	if (sabotage)
		signal(SIGCHLD, SIG_IGN);
	sigemptyset(&asking);
	sigaddset(&asking, SIGUSR1);
	sigaddset(&asking, SIGUSR2);
	for (int round = 0; !victim_asked && !victim_failed; round++, rounds++) {
		one_round(round);
		sigemptyset(&pending);
		sigpending(&pending);
		if (!sigismember(&pending, SIGUSR1) && !sigismember(&pending, SIGUSR2))
			continue;
		sigprocmask(SIG_UNBLOCK, &asking, &old);
		sigprocmask(SIG_SETMASK, &old, NULL);
		if (victim_asked_on) {
			victim_asked_on = 0;
			victim_say("rounds %lu %lu", rounds, thread_rounds);
		}
	}
	victim_asked = 1;
	if (pthread_join(thread, NULL))
		victim_fail("the thread is gone");
	if (!victim_failed && waited != rounds + thread_rounds)
		victim_fail("%lu were started, and %lu waited for", rounds + thread_rounds, (unsigned long)waited);
	victim_ok();
}
