// family is the tree of the golden image of that name: sessions and groups in the shapes that they get into when leaders
// fork early, die, or are left. The root is a subreaper. It prints "ready" and sleeps; so do the others.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(x) do { if ((long)(x) < 0) { perror(#x); exit(1); } } while (0)

static int up[2];

static void forever(void) { for (;;) pause(); }
static void settled(void) { MUST(write(up[1], "x", 1)); close(up[0]); close(up[1]); }
static void stay(void) { settled(); forever(); }
static void await(int n) { char c; while (n--) MUST(read(up[0], &c, 1)); }
static pid_t child(const char *name)
{
	pid_t pid = fork();
	MUST(pid);
	if (pid == 0)
		prctl(PR_SET_NAME, name);
	return pid;
}

int main(void)
{
	MUST(close_range(3, ~0U, 0));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(pipe(up));

	// A session of its own whose leader lives; a grandchild of it comes back to the root as an orphan.
	if (child("leader") == 0) {
		setsid();
		if (child("gone") == 0) {
			if (child("orphan") == 0)
				stay();
			_exit(0);
		}
		wait(NULL);
		stay();
	}
	await(2);

	// A leader that forked before it left for its own session.
	if (child("late") == 0) {
		if (child("early") == 0)
			stay();
		setsid();
		if (child("after") == 0)
			stay();
		stay();
	}
	await(3);

	// A session whose leader is gone, with two groups; one orphan has a child that leads a session.
	pid_t gone = child("gone");
	if (gone == 0) {
		setsid();
		if (child("left") == 0) {
			if (child("own") == 0) {
				setsid();
				stay();
			}
			stay();
		}
		if (child("apart") == 0) {
			setpgid(0, 0);
			stay();
		}
		await(3);
		_exit(0);
	}
	MUST(waitpid(gone, NULL, 0));

	// A group whose leader is gone.
	gone = child("gone");
	if (gone == 0) {
		setpgid(0, 0);
		if (child("member") == 0)
			stay();
		if (child("member") == 0)
			stay();
		await(2);
		_exit(0);
	}
	MUST(waitpid(gone, NULL, 0));

	// A leader deeper down, whose orphan comes back to the root all the same.
	if (child("middle") == 0) {
		if (child("deep") == 0) {
			setsid();
			if (child("gone") == 0) {
				if (child("far") == 0)
					stay();
				_exit(0);
			}
			wait(NULL);
			stay();
		}
		stay();
	}
	await(3);

	// A dead session leader that nobody has waited for, one that was killed, a stopped process.
	siginfo_t si;
	pid_t dead = child("dead");
	if (dead == 0) {
		setsid();
		_exit(7);
	}
	MUST(waitid(P_PID, dead, &si, WEXITED | WNOWAIT));
	dead = child("killed");
	if (dead == 0)
		raise(SIGKILL);
	MUST(waitid(P_PID, dead, &si, WEXITED | WNOWAIT));
	pid_t stopped = child("stopped");
	if (stopped == 0) {
		setpgid(0, 0);
		raise(SIGTSTP);
		forever();
	}
	MUST(waitid(P_PID, stopped, &si, WSTOPPED | WNOWAIT));
	puts("ready");
	fflush(stdout);
	forever();
}
