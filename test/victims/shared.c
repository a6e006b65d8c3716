/*
 * shared: processes that share what processes seldom share. One child has the descriptor table, the working directory and
 * the umask of its parent (CLONE_FILES, CLONE_FS), another one the working directory only. What one opens, closes or
 * changes, the other finds.
 */
#include "victim.h"
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static int ask[2], answer[2], ask_other[2], answer_other[2];

/* What a child is asked for: 'o' opens a file and tells its number, 'c' closes number 70, 'd' goes to a directory. */
static void serve(int from, int to)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(from, &c, 1) == 1) {
		if (c == 'q')
			_exit(0);
		if (c == 'o')
			c = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		else if (c == 'c')
			c = close(70) ? errno : 0;
		else
			c = chdir("below") ? errno : (umask(0) == 0135 ? umask(0135), 0 : 1);
		if (write(to, &c, 1) != 1)
			_exit(3);
	}
	_exit(3);
}

static int of(int to, int from, char what)
{
	char c = -1;

	if (write(to, &what, 1) != 1 || read(from, &c, 1) != 1)
		victim_fail("a child does not answer");
	return c;
}

static bool here(const char *last)
{
	char cwd[4096] = "";
	size_t length = strlen(last);

	return getcwd(cwd, sizeof(cwd)) && strlen(cwd) > length && !strcmp(cwd + strlen(cwd) - length, last);
}

int main(int argc, char **argv)
{
	pid_t child, other;
	int status, fd;
	char c = 1;

	victim_init(argc, argv);
	umask(0);
	if (mkdir("below", 0755) || mkdir("below/below", 0755))
		victim_die("directories");
	if (pipe(ask) || pipe(answer) || pipe(ask_other) || pipe(answer_other) || dup2(ask[0], 70) < 0)
		victim_die("pipes");
	umask(0135);
	child = syscall(SYS_clone, CLONE_FILES | CLONE_FS | SIGCHLD, 0, 0, 0, 0);
	if (child == 0)
		serve(ask[0], answer[1]);
	other = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
	if (other == 0)
		serve(ask_other[0], answer_other[1]);
	if (child < 0 || other < 0)
		victim_die("clone");

	victim_ready();
	if (sabotage)
		umask(0);
	victim_wait();

	fd = of(ask[1], answer[0], 'o');
	if (fd < 0 || read(fd, &c, 1) != 1 || c || fcntl(fd, F_GETFD) != FD_CLOEXEC)
		victim_fail("what the child has opened, %d, is not here", fd);
	if (of(ask[1], answer[0], 'c') || fcntl(70, F_GETFD) != -1 || errno != EBADF)
		victim_fail("what the child has closed is still here");
	if (of(ask[1], answer[0], 'd') || !here("/below"))
		victim_fail("the working directory or the umask is not shared");
	if (of(ask_other[1], answer_other[0], 'd') || !here("/below/below"))
		victim_fail("the working directory or the umask is not shared with the other");
	/* In its own table what the child has opened is not there, so the number is free. */
	if (of(ask_other[1], answer_other[0], 'o') != fd)
		victim_fail("the other child shares descriptors");
	if (write(ask[1], "q", 1) != 1 || waitpid(child, &status, 0) != child || status)
		victim_fail("the child ended with %#x", status);
	if (write(ask_other[1], "q", 1) != 1 || waitpid(other, &status, 0) != other || status)
		victim_fail("the other child ended with %#x", status);
	victim_ok();
}
