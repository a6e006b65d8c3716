/*
 * sessions [SHAPE ...]: processes that are tied in the ways that are legal and not plain; all of them when none is named.
 *
 *	nested		sessions led by the children of the leaders of others
 *	stayed		a child that was born before its parent left for a session of its own
 *	nogroup		a group whose leader is gone
 *	deadgroup	a group whose leader is a zombie
 *	nosession	a session whose leader is gone, and what it left the first process
 *	deadsession	a session whose leader is a zombie, with a member and a group in it
 *	swapped		two that lead a group, each in that of the other
 *	stopped		a child that is stopped, one that is in a group that nobody watches, one with threads
 *	killed		zombies that were killed by signals
 *
 * The check is that all have the same parents, groups, sessions and states as before, that zombies have their status, and that
 * those who are stopped go on when they are told.
 */
#include "victim.h"
#include <pthread.h>
#include <sys/prctl.h>

enum { MOST = 32 };

struct ties {
	pid_t pid, parent, group, session;
	char state;
};

static struct {
	const char *shape, *who;
	struct ties before;
	int status; /* of a zombie */
} all[MOST];
static int count, said[2], told[2];
static int alive[2]; /* the first process alone can write to it */

/* Says that this process is in place, by its pid, and stays there until the first one has ended. */
static void stay(void)
{
	pid_t pid = getpid();
	char c;

	close(alive[1]);
	if (write(said[1], &pid, sizeof(pid)) != sizeof(pid))
		_exit(3);
	_exit(read(alive[0], &c, 1) ? 5 : 0);
}

static pid_t child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		victim_die("fork");
	return pid;
}

static pid_t hear(void)
{
	pid_t pid;

	if (read(said[0], &pid, sizeof(pid)) != sizeof(pid))
		victim_die("nobody says anything");
	return pid;
}

static struct ties look(pid_t pid)
{
	struct ties t = { .pid = pid };
	char name[64], text[512], *p;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/stat", pid);
	f = fopen(name, "r");
	if (f && fgets(text, sizeof(text), f) && (p = strrchr(text, ')')))
		sscanf(p + 1, " %c %d %d %d", &t.state, &t.parent, &t.group, &t.session);
	if (f)
		fclose(f);
	if (t.state == 'R')
		t.state = 'S';
	return t;
}

static void note(const char *shape, const char *who, pid_t pid)
{
	if (count == MOST)
		victim_die("too many");
	all[count].shape = shape;
	all[count].who = who;
	all[count++].before.pid = pid;
}

static void must(bool ok)
{
	if (!ok)
		_exit(4);
}

/* A child that has ended and is not waited for. */
static void bury(pid_t pid)
{
	siginfo_t info;

	if (waitid(P_PID, pid, &info, WEXITED | WNOWAIT))
		victim_die("waitid");
}

static void nested(void)
{
	if (child() == 0) {
		must(setsid() > 0);
		if (child() == 0) {
			must(setsid() > 0);
			if (child() == 0)
				stay();
			stay();
		}
		stay();
	}
	for (int i = 0; i < 3; i++)
		note("nested", "one", hear());
}

static void stayed(void)
{
	if (child() == 0) {
		if (child() == 0)
			stay();
		must(setsid() > 0);
		if (child() == 0)
			stay();
		stay();
	}
	for (int i = 0; i < 3; i++)
		note("stayed", "one", hear());
}

/* Makes a group of a leader, who ends, and a member. */
static pid_t leaderless(pid_t *leader)
{
	pid_t member;

	if ((*leader = child()) == 0) {
		must(setpgid(0, 0) == 0);
		stay();
	}
	hear();
	if ((member = child()) == 0) {
		must(setpgid(0, *leader) == 0);
		stay();
	}
	hear();
	kill(*leader, SIGKILL);
	bury(*leader);
	return member;
}

static void nogroup(void)
{
	pid_t leader, member = leaderless(&leader);

	waitpid(leader, NULL, 0);
	note("nogroup", "member", member);
}

static void deadgroup(void)
{
	pid_t leader, member = leaderless(&leader);

	note("deadgroup", "leader", leader);
	note("deadgroup", "member", member);
}

/* A session whose leader ends, of a member that it had and one in a group of its own. */
static pid_t deserted(const char *shape)
{
	pid_t leader = child(), member;

	if (leader == 0) {
		char c;

		must(setsid() > 0);
		if (child() == 0)
			stay();
		if (child() == 0) {
			must(setpgid(0, 0) == 0);
			stay();
		}
		must(read(told[0], &c, 1) == 1);
		_exit(7);
	}
	for (int i = 0; i < 2; i++) {
		member = hear();
		note(shape, "member", member);
	}
	if (write(told[1], "", 1) != 1)
		victim_die("pipe");
	bury(leader);
	return leader;
}

static void nosession(void)
{
	waitpid(deserted("nosession"), NULL, 0);
}

static void deadsession(void)
{
	note("deadsession", "leader", deserted("deadsession"));
}

static void swapped(void)
{
	pid_t pids[3];

	/* The third keeps the first one's group alive. */
	for (int i = 0; i < 3; i++) {
		pids[i] = child();
		if (pids[i] == 0)
			stay();
		hear();
		if (setpgid(pids[i], pids[i % 2]))
			victim_die("setpgid");
		note("swapped", "one", pids[i]);
	}
	if (setpgid(pids[0], pids[1]) || setpgid(pids[1], pids[0]))
		victim_die("setpgid");
}

static void *idle(void *nothing)
{
	for (;;)
		pause();
	return nothing;
}

static void stopped(void)
{
	for (int i = 0; i < 3; i++) {
		pid_t pid = child();

		if (pid == 0) {
			pthread_t t;

			must(i != 1 || setsid() > 0);
			must(i != 2 || pthread_create(&t, NULL, idle, NULL) == 0);
			stay();
		}
		hear();
		note("stopped", "one", pid);
		kill(pid, SIGSTOP);
		if (waitpid(pid, NULL, WUNTRACED) != pid)
			victim_die("stop");
	}
}

static void killed(void)
{
	const int signals[] = { SIGKILL, SIGTERM, SIGRTMIN + 5 };

	for (int i = 0; i < 3; i++) {
		pid_t pid = child();

		if (pid == 0)
			stay();
		hear();
		kill(pid, signals[i]);
		bury(pid);
		note("killed", "zombie", pid);
	}
}

static const struct {
	const char *name;
	void (*make)(void);
} shapes[] = {
	{ "nested", nested }, { "stayed", stayed }, { "nogroup", nogroup }, { "deadgroup", deadgroup }, { "nosession", nosession },
	{ "deadsession", deadsession }, { "swapped", swapped }, { "stopped", stopped }, { "killed", killed },
};

static void make(const char *name)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (!name || strcmp(name, shapes[i].name) == 0)
			shapes[i].make();
}

static int status_of(pid_t pid)
{
	siginfo_t info = { 0 };

	if (waitid(P_PID, pid, &info, WEXITED | WNOWAIT | WNOHANG))
		return -1;
	return info.si_code << 16 | info.si_status;
}

static void check(int i)
{
	struct ties now = look(all[i].before.pid), *was = &all[i].before;

	if (memcmp(&now, was, sizeof(now)))
		victim_fail("%s: %s %d: parent, group, session, state were %d %d %d %c and are %d %d %d %c", all[i].shape, all[i].who,
			    was->pid, was->parent, was->group, was->session, was->state, now.parent, now.group, now.session,
			    now.state ? now.state : '-');
	if (was->state == 'Z' && status_of(was->pid) != all[i].status)
		victim_fail("%s: %s %d: its status was %#x and is %#x", all[i].shape, all[i].who, was->pid, all[i].status, status_of(was->pid));
	if (was->state == 'T') {
		int status = 0;

		/* That it has stopped may be told once more. */
		waitpid(was->pid, &status, WUNTRACED | WNOHANG);
		if (kill(was->pid, SIGCONT) || waitpid(was->pid, &status, WCONTINUED) != was->pid || !WIFCONTINUED(status))
			victim_fail("%s: %s %d: does not go on: status %#x", all[i].shape, all[i].who, was->pid, status);
	}
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	if (getsid(0) != getpid() && setsid() < 0)
		victim_die("setsid");
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) || pipe2(said, O_CLOEXEC) || pipe2(told, O_CLOEXEC) || pipe2(alive, O_CLOEXEC))
		victim_die("prctl, pipe");
	if (victim_argc == 1)
		make(NULL);
	for (int i = 1; i < victim_argc; i++)
		make(victim_argv[i]);
	for (int i = 0; i < count; i++) {
		/* Until all that was said has come to be: those who are left to the first process, states. */
		do
			all[i].before = look(all[i].before.pid);
		while (all[i].before.state == 'D');
		if (all[i].before.state == 'Z')
			all[i].status = status_of(all[i].before.pid);
	}

	victim_ready();
	if (sabotage)
		all[0].before.group++;
	victim_wait();

	for (int i = 0; i < count; i++)
		check(i);
	for (int i = 0; i < count; i++)
		kill(all[i].before.pid, SIGKILL);
	victim_ok();
}
