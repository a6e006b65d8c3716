// job is the tree of the golden image of that name: a shell job on a pseudoterminal, in a session that somebody else leads. The
// program is that somebody: it starts the job, says which process it is, and waits to be killed.
#define _GNU_SOURCE
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void forever(void) { for (;;) pause(); }

int main(void)
{
	int master;
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	pid_t shell = forkpty(&master, NULL, NULL, &size);
	if (shell < 0)
		exit(1);
	if (shell > 0) {
		FILE *from = fdopen(master, "r");
		char line[80];
		while (fgets(line, sizeof line, from)) { // until the job is there
			fputs(line, stdout);
			fflush(stdout);
		}
		forever();
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pid_t job = fork();
	if (job == 0) {
		setpgid(0, 0);
		signal(SIGTTOU, SIG_IGN);
		tcsetpgrp(0, getpid());
		close_range(3, ~0U, 0);
		pid_t child = fork(); // in the same group
		if (child == 0)
			forever();
		if (fork() == 0) { // in one of its own
			setpgid(0, 0);
			forever();
		}
		printf("ready %d\n", getpid());
		fflush(stdout);
		forever();
	}
	close(0);
	close(1);
	close(2);
	waitpid(job, NULL, 0);
}
