// tree is the process of the golden image of that name: a root with a stopped child in a group of its own, a dead child that
// nobody has waited for, and a child in a session of its own with a child. It prints "ready" and sleeps.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void forever(void)
{
	for (;;)
		pause();
}

int main(void)
{
	if (close_range(3, ~0U, 0)) // nothing inherited but 0 to 2
		exit(1);
	pid_t stopped = fork();
	if (stopped == 0) {
		setpgid(0, 0);
		raise(SIGSTOP);
		forever();
	}
	waitpid(stopped, NULL, WUNTRACED);

	pid_t dead = fork();
	if (dead == 0)
		_exit(3);
	siginfo_t si;
	waitid(P_PID, dead, &si, WEXITED | WNOWAIT);

	int p[2];
	if (pipe(p))
		exit(1);
	pid_t leader = fork();
	if (leader == 0) {
		setsid();
		if (fork() == 0)
			forever();
		if (write(p[1], "x", 1) != 1)
			exit(1);
		forever();
	}
	char c;
	if (read(p[0], &c, 1) != 1)
		exit(1);
	puts("ready");
	fflush(stdout);
	forever();
}
