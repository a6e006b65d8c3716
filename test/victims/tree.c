/*
 * tree: a small family. The parent leads a session; below it
 *
 *	sleeper		a child in the parent's process group
 *	leader		a child that leads a process group of its own
 *	member		a child in the leader's group
 *	session		a child that leads a session of its own
 *	grandchild	a child of session, in session's session
 *	zombie		a child that ended with status 42 and was not waited for
 *
 * The check is that everyone has the same pid, parent, group and session as before, that all are alive, and that the
 * zombie still has its status.
 */
#include "victim.h"
#include <sys/prctl.h>

struct ids {
	pid_t pid, parent, group, session;
};

enum { SLEEPER, LEADER, MEMBER, SESSION, GRANDCHILD, ZOMBIE, FAMILY };
static const char *const names[] = { "sleeper", "leader", "member", "session", "grandchild", "zombie" };

/* What a member says over its pipe: at the start, and whenever it is asked to by SIGUSR1. */
static void report(int to)
{
	struct ids ids = { getpid(), getppid(), getpgrp(), getsid(0) };

	if (write(to, &ids, sizeof(ids)) != sizeof(ids))
		_exit(3);
}

static void live(int to)
{
	sigset_t mask = victim_open_mask();

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that kills the parent is rid of all */
	report(to);
	for (;;) {
		while (!victim_asked)
			sigsuspend(&mask);
		victim_asked = 0;
		report(to);
	}
}

static int pipes[FAMILY][2];

static pid_t start(int who, pid_t group, bool session)
{
	pid_t pid = fork();

	if (pid < 0)
		victim_die("fork");
	if (pid > 0)
		return pid;
	if (session ? setsid() < 0 : group >= 0 && setpgid(0, group))
		victim_die("%s: its group or session", names[who]);
	if (who == SESSION) {
		pid_t grandchild = fork();

		if (grandchild < 0)
			victim_die("fork");
		if (grandchild == 0)
			live(pipes[GRANDCHILD][1]);
	}
	if (who == ZOMBIE) {
		report(pipes[who][1]);
		_exit(42);
	}
	live(pipes[who][1]);
	_exit(0);
}

static struct ids hear(int who)
{
	struct ids ids = { 0 };

	if (read(pipes[who][0], &ids, sizeof(ids)) != sizeof(ids))
		victim_fail("%s: said nothing", names[who]);
	return ids;
}

int main(int argc, char **argv)
{
	struct ids before[FAMILY], self = { 0 };
	siginfo_t info = { 0 };
	int status = 0;

	victim_init(argc, argv);
	if (getsid(0) != getpid() && setsid() < 0)
		victim_die("setsid");
	for (int i = 0; i < FAMILY; i++)
		if (pipe2(pipes[i], O_CLOEXEC))
			victim_die("pipe2");
	for (int i = 0; i < FAMILY; i++) {
		if (i == GRANDCHILD)
			continue; /* its parent starts it */
		start(i, i == LEADER ? 0 : i == MEMBER ? before[LEADER].pid : -1, i == SESSION);
		before[i] = hear(i);
		if (i == SESSION)
			before[GRANDCHILD] = hear(GRANDCHILD);
	}
	/* Until the zombie is one; it stays one. */
	if (waitid(P_PID, before[ZOMBIE].pid, &info, WEXITED | WNOWAIT))
		victim_die("waitid");
	self = (struct ids){ getpid(), 0, getpgrp(), getsid(0) };

	victim_ready();
	if (sabotage) {
		kill(before[MEMBER].pid, SIGKILL);
		waitpid(before[MEMBER].pid, NULL, 0);
	}
	victim_wait();

	if (getpid() != self.pid || getpgrp() != self.group || getsid(0) != self.session)
		victim_fail("the parent's own pid, group or session has changed");
	for (int i = 0; i < FAMILY; i++) {
		struct ids now;

		if (i == ZOMBIE)
			continue;
		if (kill(before[i].pid, SIGUSR1)) {
			victim_fail("%s: pid %d is gone", names[i], before[i].pid);
			continue;
		}
		now = hear(i);
		if (memcmp(&now, &before[i], sizeof(now)))
			victim_fail("%s: pid, parent, group, session were %d %d %d %d and are %d %d %d %d", names[i],
				    before[i].pid, before[i].parent, before[i].group, before[i].session, now.pid,
				    now.parent, now.group, now.session);
	}
	if (waitpid(before[ZOMBIE].pid, &status, WNOHANG) != before[ZOMBIE].pid || !WIFEXITED(status) || WEXITSTATUS(status) != 42)
		victim_fail("the zombie is gone, or its status has changed to %#x", status);

	/* The grandchild dies with its parent. */
	for (int i = 0; i < FAMILY; i++)
		if (i != ZOMBIE && i != GRANDCHILD && !(sabotage && i == MEMBER)) {
			kill(before[i].pid, SIGKILL);
			waitpid(before[i].pid, NULL, 0);
		}
	victim_ok();
}
