/*
 * apart: threads with descriptor tables, working directories and umasks of their own (unshare), some of which have them in
 * common again. What one opens, closes or changes, those find who share it, and no others:
 *
 *	first thread	a table and a directory of its own
 *	A and B		a table of theirs; the directory that E has
 *	C		a directory that D has; the table that E has
 *	D		a table of its own
 *	E		what the process had at first
 *
 * apart shared: children have some of these, too:
 *
 *	P		the table of D; a directory of its own
 *	Q		the table of C and E; the directory of C and D
 *	R		a table and a directory of its own, when it had those of A
 *	R's thread	the table of A and B; the directory of E
 */
#include "victim.h"
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { FIRST, A, B, C, D, E, P, Q, R, THREAD, ALL };

enum what { NOTHING, OPEN, CLOSE, FLAGS, BYTE, CHDIR, UMASK, CWD, POLL, BEAR, PART, END };

enum { FILE_FD = 60, READ_FD, WRITE_FD, EPOLL_FD, GONE_FD, PROC_FD, NEW_FD = 200 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct work {
	enum what what;
	int number, result;
	const char *text;
} work[ALL];
static int ready;
static int everybody = P; /* how many there are */
static int to[ALL][2], from[ALL][2]; /* children, and those who are in them */
static pid_t children[ALL];

static int bear(int who);

/* Does a piece of work. */
static int act(const struct work *w)
{
	struct epoll_event event;
	char text[4096] = "", c = 0;
	int fd;

	switch (w->what) {
	case OPEN: /* a file at a number */
		fd = open(w->text, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || dup2(fd, w->number) < 0)
			return -errno;
		return close(fd);
	case CLOSE:
		return close(w->number) ? -errno : 0;
	case FLAGS:
		fd = fcntl(w->number, F_GETFD);
		return fd < 0 ? -errno : fd;
	case BYTE:
		return read(w->number, &c, 1) == 1 ? c : -errno;
	case CHDIR:
		return chdir(w->text) ? -errno : 0;
	case UMASK: /* sets one, and says what it was */
		return umask(w->number);
	case CWD: /* whether it ends so */
		if (!getcwd(text, sizeof(text)) || strlen(text) < strlen(w->text))
			return -errno;
		return !strcmp(text + strlen(text) - strlen(w->text), w->text);
	case BEAR:
		return bear(w->number);
	case PART:
		return unshare(w->number);
	case END:
		_exit(0);
	case POLL:
		return epoll_wait(w->number, &event, 1, 0) == 1 ? (int)event.data.u32 : -errno;
	default:
		return -EINVAL;
	}
}

static int ask(int who, enum what what, int number, const char *text)
{
	struct work mine = { what, number, 0, text };
	int result;

	if (who == FIRST)
		return act(&mine);
	if (who >= P) { /* text is where it is here */
		if (write(to[who][1], &mine, sizeof(mine)) != sizeof(mine) || read(from[who][0], &result, sizeof(result)) != sizeof(result))
			victim_fail("child %d does not answer", who);
		return result;
	}
	pthread_mutex_lock(&mutex);
	work[who] = mine;
	pthread_cond_broadcast(&changed);
	while (work[who].what != NOTHING)
		pthread_cond_wait(&changed, &mutex);
	result = work[who].result;
	pthread_mutex_unlock(&mutex);
	return result;
}

static void *run(void *argument);

/* What a child, or the thread of one, does. */
static void *serve(void *argument)
{
	long who = (long)argument;
	struct work w;
	int result;

	while (read(to[who][0], &w, sizeof(w)) == sizeof(w)) {
		result = act(&w);
		if (write(from[who][1], &result, sizeof(result)) != sizeof(result))
			break;
	}
	_exit(3);
}

/* R: what it was born with it leaves to its thread. */
static void leave(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, serve, (void *)THREAD) || unshare(CLONE_FILES | CLONE_FS) || chdir("r"))
		victim_die("a thread of a child");
	umask(045);
	for (int fd = FILE_FD; fd <= PROC_FD; fd++)
		close(fd);
}

/* Makes a child. Nobody else does anything meanwhile. */
static int bear(int who)
{
	static const int flags[] = { [P] = CLONE_FILES, [Q] = CLONE_FILES | CLONE_FS, [R] = CLONE_FILES | CLONE_FS };
	pid_t pid = syscall(SYS_clone, flags[who] | SIGCHLD, 0, 0, 0, 0);

	if (pid)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (who == R)
		leave();
	serve((void *)(long)who);
	_exit(3);
}

static void make(long who)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, (void *)who))
		victim_die("thread");
}

/*
 * What A alone has: half a file that was read, a pipe with something in it, an epoll file that watches it, a file whose name is
 * gone, and one of the process itself.
 */
static void own_files(void)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = 77 };
	int fds[2], fd = open("file", O_RDONLY);

	if (fd < 0 || lseek(fd, 3, SEEK_SET) != 3 || dup3(fd, FILE_FD, O_CLOEXEC) < 0 || close(fd))
		victim_die("a file");
	if (pipe(fds) || dup2(fds[0], READ_FD) < 0 || dup2(fds[1], WRITE_FD) < 0 || close(fds[0]) || close(fds[1]) ||
	    write(WRITE_FD, "pipe", 4) != 4)
		victim_die("a pipe");
	fd = epoll_create1(0);
	if (fd < 0 || dup2(fd, EPOLL_FD) < 0 || close(fd) || epoll_ctl(EPOLL_FD, EPOLL_CTL_ADD, READ_FD, &event))
		victim_die("epoll");
	fd = open("gone", O_RDWR | O_CREAT, 0644);
	if (fd < 0 || write(fd, "gone", 4) != 4 || lseek(fd, 0, SEEK_SET) || unlink("gone") || dup2(fd, GONE_FD) < 0 || close(fd))
		victim_die("a file without a name");
	fd = open("/proc/self/comm", O_RDONLY);
	if (fd < 0 || dup2(fd, PROC_FD) < 0 || close(fd))
		victim_die("/proc/self/comm");
}

static void *run(void *argument)
{
	long who = (long)argument;

	if (who == A) {
		if (unshare(CLONE_FILES))
			victim_die("unshare");
		own_files();
		make(B);
	} else if (who == C) {
		if (unshare(CLONE_FS) || chdir("c"))
			victim_die("unshare");
		umask(0123);
		make(D);
	} else if (who == D) {
		if (unshare(CLONE_FILES) || dup2(open("../file", O_RDONLY), FILE_FD) != FILE_FD)
			victim_die("unshare");
	}
	pthread_mutex_lock(&mutex);
	ready++;
	pthread_cond_broadcast(&changed);
	for (;;) {
		while (work[who].what == NOTHING)
			pthread_cond_wait(&changed, &mutex);
		work[who].result = act(&work[who]);
		work[who].what = NOTHING;
		pthread_cond_broadcast(&changed);
	}
}

/* Asks everybody. Those in the set, a bit each, must answer one thing, the others another. */
static void all(const char *why, unsigned set, enum what what, int number, const char *text, int in, int out)
{
	for (int who = 0; who < everybody; who++) {
		int want = set >> who & 1 ? in : out, got = ask(who, what, number, text);

		if (got != want)
			victim_fail("%s: thread %d says %d, and not %d", why, who, got, want);
	}
}

#define BIT(who) (1u << (who))

static void check_children(void)
{
	int status;

	if (ask(Q, UMASK, 0111, NULL) != 0123 || ask(D, UMASK, 0123, NULL) != 0111)
		victim_fail("the umask of Q and D");
	if (ask(THREAD, UMASK, 0111, NULL) != 0135 || ask(E, UMASK, 0135, NULL) != 0111 || ask(R, UMASK, 0, NULL) != 045 || ask(P, UMASK, 0, NULL) != 0123)
		victim_fail("the umask of the others");
	/* The last ones to read are those who did not before. */
	if (ask(P, BYTE, FILE_FD, NULL) != 'b' || ask(THREAD, BYTE, FILE_FD, NULL) != 'e' || ask(THREAD, BYTE, READ_FD, NULL) != 'i')
		victim_fail("the files of P and of R's thread");
	if (ask(THREAD, POLL, EPOLL_FD, NULL) != 77 || ask(THREAD, BYTE, GONE_FD, NULL) != 'o')
		victim_fail("what R's thread has of A's");
	for (int who = P; who <= R; who++) {
		struct work end = { END, 0, 0, NULL };

		if (write(to[who][1], &end, sizeof(end)) != sizeof(end) || waitpid(children[who], &status, __WALL) != children[who] || status)
			victim_fail("child %d ends with %#x", who, status);
	}
}

static void check(void)
{
	static const struct {
		int who;
		unsigned table;
	} tables[] = { { FIRST, BIT(FIRST) }, { A, BIT(A) | BIT(B) | BIT(THREAD) }, { D, BIT(D) | BIT(P) }, { E, BIT(C) | BIT(E) | BIT(Q) }, { R, BIT(R) } };
	int n = everybody == ALL ? 5 : 4;

	for (int i = 0; i < n; i++)
		if (ask(tables[i].who, OPEN, NEW_FD + i, "/dev/null"))
			victim_fail("thread %d cannot open a file", tables[i].who);
	for (int i = 0; i < n; i++)
		all("descriptors", tables[i].table, FLAGS, NEW_FD + i, NULL, 0, -EBADF);

	if (ask(B, FLAGS, FILE_FD, NULL) != FD_CLOEXEC || ask(B, BYTE, FILE_FD, NULL) != 'd')
		victim_fail("the file of A and B");
	if (ask(D, FLAGS, FILE_FD, NULL) || ask(D, BYTE, FILE_FD, NULL) != 'a')
		victim_fail("the file of D");
	if (ask(C, FLAGS, FILE_FD, NULL) || ask(C, BYTE, FILE_FD, NULL) || ask(FIRST, FLAGS, FILE_FD, NULL) != -EBADF)
		victim_fail("the file that all had");
	all("the pipe", BIT(A) | BIT(B) | BIT(THREAD), FLAGS, WRITE_FD, NULL, 0, -EBADF);
	if (ask(A, POLL, EPOLL_FD, NULL) != 77 || ask(B, BYTE, READ_FD, NULL) != 'p')
		victim_fail("what is in the pipe");
	all("the file without a name", BIT(A) | BIT(B) | BIT(THREAD), FLAGS, GONE_FD, NULL, 0, -EBADF);
	if (ask(B, BYTE, GONE_FD, NULL) != 'g')
		victim_fail("the file without a name");
	all("/proc/self/comm", BIT(A) | BIT(B) | BIT(THREAD), FLAGS, PROC_FD, NULL, 0, -EBADF);
	if (ask(A, BYTE, PROC_FD, NULL) != 'a')
		victim_fail("/proc/self/comm");

	all("working directory", BIT(FIRST), CWD, 0, "/first", 1, 0);
	all("working directory", BIT(C) | BIT(D) | BIT(Q) | BIT(P), CWD, 0, "/c", 1, 0);
	all("working directory", BIT(R), CWD, 0, "/r", 1, 0);
	if (ask(D, CHDIR, 0, "deeper") || ask(E, CHDIR, 0, "other"))
		victim_fail("chdir");
	all("working directory", BIT(C) | BIT(D) | BIT(Q), CWD, 0, "/c/deeper", 1, 0);
	all("working directory", BIT(A) | BIT(B) | BIT(E) | BIT(THREAD), CWD, 0, "/other", 1, 0);
	if (ask(D, UMASK, 0111, NULL) != 0123 || ask(C, UMASK, 0123, NULL) != 0111)
		victim_fail("the umask of C and D");
	if (ask(E, UMASK, 0111, NULL) != 0135 || ask(A, UMASK, 0135, NULL) != 0111 || ask(FIRST, UMASK, 0, NULL) != 017)
		victim_fail("the umask of the others");
	if (everybody == ALL)
		check_children();
}

int main(int argc, char **argv)
{
	int fd;

	victim_init(argc, argv);
	if (victim_argc > 1 && !strcmp(victim_argv[1], "shared"))
		everybody = ALL;
	for (int who = P; who < everybody; who++)
		if (pipe(to[who]) || pipe(from[who]))
			victim_die("pipes");
	umask(0);
	fd = open("file", O_CREAT | O_TRUNC | O_WRONLY, 0644);
	if (fd < 0 || write(fd, "abcdef", 6) != 6 || close(fd) || mkdir("c", 0755) || mkdir("c/deeper", 0755) || mkdir("first", 0755) ||
	    mkdir("other", 0755) || mkdir("r", 0755))
		victim_die("files");
	umask(0135);
	fd = open("/dev/zero", O_RDONLY);
	if (fd < 0 || dup2(fd, FILE_FD) < 0 || close(fd))
		victim_die("/dev/zero");
	make(A);
	make(C);
	make(E);
	pthread_mutex_lock(&mutex);
	while (ready < E)
		pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
	for (int who = P; who <= R && everybody == ALL; who++) {
		children[who] = ask(who == P ? D : who == Q ? C : A, BEAR, who, NULL);
		if (children[who] < 0)
			victim_die("child %d", who);
	}
	/* R is ready when its thread is and it has left what that has. */
	if (everybody == ALL && (ask(R, FLAGS, FILE_FD, NULL) != -EBADF || ask(THREAD, FLAGS, FILE_FD, NULL) < 0))
		victim_die("R");
	if (unshare(CLONE_FILES | CLONE_FS) || close(FILE_FD) || chdir("first"))
		victim_die("unshare");
	umask(017);

	victim_ready();
	if (sabotage && everybody == ALL)
		ask(P, PART, CLONE_FILES, NULL);
	else if (sabotage)
		ask(D, CLOSE, FILE_FD, NULL);
	victim_wait();
	check();
	victim_ok();
}
