/*
 * lingers [stack]: a single thread, and a handler for SIGRTMIN that stays where it is until SIGUSR2 comes; with an argument it has
 * a stack of its own. It says "handling N" when it is in the handler for the Nth time, and "back N" when the call that was
 * interrupted has returned. Its check is that the handler was left as often as it was entered, and the call only interrupted.
 */
#include "victim.h"

static volatile unsigned long entered, left;

static void on_signal(int signo)
{
	sigset_t mask;

	(void)signo;
	victim_say("handling %lu", ++entered);
	sigfillset(&mask);
	sigdelset(&mask, SIGUSR2);
	while (!victim_asked_on)
		sigsuspend(&mask);
	victim_asked_on = 0;
	left++;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };
	static char room[1 << 16];
	stack_t stack = { .ss_sp = room, .ss_size = sizeof(room) };
	unsigned long said = 0;
	sigset_t mask;

	victim_init(argc, argv);
	if (victim_argc > 1) {
		action.sa_flags = SA_ONSTACK;
		if (sigaltstack(&stack, NULL))
			victim_die("sigaltstack");
	}
	sigfillset(&action.sa_mask);
	if (sigaction(SIGRTMIN, &action, NULL))
		victim_die("sigaction");
	mask = victim_open_mask();
	sigaddset(&mask, SIGUSR2);
	victim_ready();
	if (sabotage)
		left--;
	while (!victim_asked) {
		errno = 0;
		if (sigsuspend(&mask) != -1 || errno != EINTR)
			victim_fail("sigsuspend: errno %d", errno);
		if (left != said && !sabotage)
			victim_say("back %lu", said = left);
	}
	if (entered != left)
		victim_fail("the handler was entered %lu times and left %lu times", entered, left);
	victim_ok();
}
