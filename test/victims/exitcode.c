/*
 * exitcode STATUS: ends with that status when told, by SIGUSR1, and not with a verdict: for those who restore a process
 * as their child and wait for it. A status of 256 and more is a signal, which it sends itself: 256 + SIGTERM.
 */
#include "victim.h"

int main(int argc, char **argv)
{
	long status;

	victim_init(argc, argv);
	status = victim_number(1, 0);
	if (sabotage)
		status = 1;
	victim_ready();
	victim_wait();
	if (status >= 256) {
		raise(status - 256);
		victim_fail("lived on after signal %ld", status - 256);
	}
	_exit(status);
}
