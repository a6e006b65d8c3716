/*
 * signals: handlers, a mask, an alternate stack, and signals that wait to be delivered: one to the process, two of a
 * real-time kind with values, in order, and one to the thread alone.
 */
#include "victim.h"
#include <sys/syscall.h>

static volatile sig_atomic_t on_stack, delivered;
static volatile int values[8];
static char stack_memory[65536];

static void on_value(int signo, siginfo_t *info, void *context)
{
	char here;

	(void)signo, (void)context;
	if (delivered < 8)
		values[delivered++] = info->si_value.sival_int;
	on_stack = &here >= stack_memory && &here < stack_memory + sizeof(stack_memory);
}

static void on_other(int signo)
{
	(void)signo;
}

int main(int argc, char **argv)
{
	stack_t stack = { .ss_sp = stack_memory, .ss_size = sizeof(stack_memory) }, stack_now;
	struct sigaction value = { .sa_sigaction = on_value, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sigaction other = { .sa_handler = on_other, .sa_flags = SA_RESTART | SA_NODEFER }, now;
	sigset_t blocked, pending, mask;

	victim_init(argc, argv);
	sigemptyset(&other.sa_mask);
	sigaddset(&other.sa_mask, SIGCHLD);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGRTMIN + 3);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGHUP);
	if (sigaltstack(&stack, NULL) || sigaction(SIGRTMIN + 3, &value, NULL) || sigaction(SIGHUP, &other, NULL) ||
	    signal(SIGPIPE, SIG_IGN) == SIG_ERR || sigprocmask(SIG_BLOCK, &blocked, NULL))
		victim_die("set-up of signals");
	for (int i = 1; i <= 2; i++)
		if (sigqueue(getpid(), SIGRTMIN + 3, (union sigval){ .sival_int = 1000 + i }))
			victim_die("sigqueue");
	if (kill(getpid(), SIGTERM) || syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGHUP))
		victim_die("kill");

	victim_ready();
	if (sabotage) {
		sigemptyset(&mask);
		sigaddset(&mask, SIGTERM);
		sigtimedwait(&mask, NULL, &(struct timespec){ 0 });
	}
	victim_wait();

	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int signo = 1; signo < NSIG; signo++) {
		bool want = sigismember(&blocked, signo) == 1 || signo == SIGUSR1 || signo == SIGUSR2;

		if (sigismember(&mask, signo) >= 0 && (sigismember(&mask, signo) == 1) != want)
			victim_fail("signal %d: blocked or not has changed", signo);
	}
	sigpending(&pending);
	if (!sigismember(&pending, SIGTERM) || !sigismember(&pending, SIGRTMIN + 3) || !sigismember(&pending, SIGHUP))
		victim_fail("a signal that waited to be delivered does not any more");
	if (sigaction(SIGHUP, NULL, &now) || now.sa_handler != on_other || !(now.sa_flags & SA_RESTART) ||
	    !(now.sa_flags & SA_NODEFER) || !sigismember(&now.sa_mask, SIGCHLD))
		victim_fail("the handler of SIGHUP has changed");
	if (sigaction(SIGPIPE, NULL, &now) || now.sa_handler != SIG_IGN)
		victim_fail("SIGPIPE is no longer ignored");
	if (sigaltstack(NULL, &stack_now) || stack_now.ss_sp != stack_memory || stack_now.ss_size != sizeof(stack_memory))
		victim_fail("the signal stack has changed");
	/* SIGTERM's action is the default one; nothing may be left of it but its having been there. */
	signal(SIGTERM, SIG_IGN);
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);
	if (delivered != 2 || values[0] != 1001 || values[1] != 1002)
		victim_fail("%d signals with values came, %d and %d, not 2, 1001 and 1002", (int)delivered, values[0], values[1]);
	if (!on_stack)
		victim_fail("the handler did not run on the signal stack");
	victim_ok();
}
