/*
 * sharing: processes that have the memory of the first (CLONE_VM), each with its own number, signals, limits and users:
 *
 *	A	shares nothing else
 *	B	shares descriptors, working directory and handlers too, and has a thread
 *	C	is a child of A, and shares its memory, and so that of all
 *	D	is a child of A with memory of its own, which it had from A
 *
 * What one writes or maps, the others find, and a mutex and a condition variable in that memory serve all of them.
 *
 * sharing strangers: two children share all that processes can, and nothing of it with their parent.
 * sharing niece: a child and a grandchild share descriptors that their parents do not have; there is no verdict on that.
 * sharing vfork: waits for ever for a child of vfork, which says "ready" and has no verdict.
 */
#include "sharing.h"
#include <sys/resource.h>
#include <sys/stat.h>

enum { FIRST, A, B, THREAD, C, ALL };

enum what { NOTHING, PID, PARENT, OPEN, FLAGS, CHDIR, CWD, HANDLE, HANDLED, WAITING, LIMIT, USER, MAP, PEEK, DUMPABLE, REAP, END };

enum { NEW_FD = 100, COPY = 4242 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct work {
	enum what what;
	long number, result;
	const char *text;
} work[ALL];
static int ready, to_child[2], from_child[2];
static volatile long copied;
static pid_t pids[ALL];

static void handler(int signo) { (void)signo; }
static void other_handler(int signo) { (void)signo; }

/*
 * Becomes another user. That says that the memory is not to be dumped, and ends the wish for a signal; and that user may send it
 * to nobody else.
 */
static void become_nobody(void)
{
	if (syscall(SYS_setresuid, 65534, 65534, 65534) || prctl(PR_SET_PDEATHSIG, SIGKILL))
		victim_die("setresuid");
}

/* D: what it has copied must stay what it was. */
static void child(void)
{
	char c;

	become_nobody();
	while (read(to_child[0], &c, 1) == 1) {
		c = copied == COPY;
		if (write(from_child[1], &c, 1) != 1)
			break;
	}
	_exit(0);
}

static long act(const struct work *w)
{
	struct sigaction action = { .sa_handler = w->number ? other_handler : handler };
	char text[4096] = "";
	struct rlimit limit;
	sigset_t set;
	void *page;
	int fd;

	switch (w->what) {
	case PID:
		return syscall(SYS_getpid);
	case PARENT:
		return syscall(SYS_getppid);
	case OPEN:
		fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		return fd < 0 || dup2(fd, w->number) < 0 || close(fd) ? -errno : 0;
	case FLAGS:
		fd = fcntl(w->number, F_GETFD);
		return fd < 0 ? -errno : fd;
	case CHDIR:
		return chdir(w->text) ? -errno : 0;
	case CWD:
		return getcwd(text, sizeof(text)) && strlen(text) > strlen(w->text) &&
		       !strcmp(text + strlen(text) - strlen(w->text), w->text);
	case HANDLE:
		return sigaction(SIGURG, &action, NULL) ? -errno : 0;
	case HANDLED:
		return sigaction(SIGURG, NULL, &action) ? -errno : action.sa_handler == other_handler;
	case WAITING:
		return sigpending(&set) ? -errno : sigismember(&set, SIGWINCH);
	case LIMIT:
		return getrlimit(RLIMIT_CORE, &limit) ? -errno : (long)limit.rlim_cur;
	case USER:
		return getuid();
	case MAP:
		page = mmap((void *)w->number, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		return page == MAP_FAILED ? -errno : (*(volatile char *)page = 55);
	case PEEK:
		return *(volatile char *)w->number;
	case DUMPABLE:
		return prctl(PR_GET_DUMPABLE);
	case REAP:
		return waitpid(w->number, &fd, 0) < 0 ? -errno : fd;
	case END:
		_exit(w->number);
	default:
		return -EINVAL;
	}
}

static void tell(int who, enum what what, long number, const char *text)
{
	pthread_mutex_lock(&mutex);
	work[who] = (struct work){ what, number, 0, text };
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
}

static long ask(int who, enum what what, long number, const char *text)
{
	struct work mine = { what, number, 0, text };
	long result;

	if (who == FIRST)
		return act(&mine);
	tell(who, what, number, text);
	pthread_mutex_lock(&mutex);
	while (work[who].what != NOTHING)
		pthread_cond_wait(&changed, &mutex);
	result = work[who].result;
	pthread_mutex_unlock(&mutex);
	return result;
}

static void *run(void *argument)
{
	struct rlimit limit = { 1234, 56789 };
	long who = (long)argument;
	pthread_t thread;

	if (who == A) {
		if (kill(getpid(), SIGWINCH) || setrlimit(RLIMIT_CORE, &limit))
			victim_die("limits");
		pids[C] = sharing_process(CLONE_FILES, run, (void *)C);
		copied = COPY;
		if (syscall(SYS_fork) == 0)
			child();
		copied = 0;
		become_nobody();
	} else if (who == C) {
		become_nobody();
	} else if (who == B && pthread_create(&thread, NULL, run, (void *)THREAD)) {
		victim_die("thread");
	}
	pthread_mutex_lock(&mutex);
	ready++;
	pthread_cond_broadcast(&changed);
	for (;;) {
		while (work[who].what == NOTHING)
			pthread_cond_wait(&changed, &mutex);
		pthread_mutex_unlock(&mutex);
		work[who].result = act(&work[who]);
		pthread_mutex_lock(&mutex);
		work[who].what = NOTHING;
		pthread_cond_broadcast(&changed);
	}
}

#define BIT(who) (1u << (who))

/* Asks everybody. Those in the set, a bit each, must answer one thing, the others another. */
static void all(const char *why, unsigned set, enum what what, long number, const char *text, long in, long out)
{
	for (int who = 0; who < ALL; who++) {
		long want = set >> who & 1 ? in : out, got = ask(who, what, number, text);

		if (got != want)
			victim_fail("%s: number %d says %ld, and not %ld", why, who, got, want);
	}
}

static void check(void)
{
	const unsigned first = BIT(FIRST) | BIT(B) | BIT(THREAD), a = BIT(A) | BIT(C), everybody = BIT(ALL) - 1;
	const long place = 0x6f0000000000;
	char c = 0;

	for (int who = 0; who < ALL; who++)
		if (ask(who, PID, 0, NULL) != pids[who])
			victim_fail("number %d has another pid than it had", who);
	for (int who = A; who < ALL; who++)
		if (ask(who, PARENT, 0, NULL) != pids[who == C ? A : FIRST])
			victim_fail("number %d has another parent than it had", who);

	if (ask(A, MAP, place, NULL) != 55 || ask(B, MAP, place + 8192, NULL) != 55)
		victim_fail("memory cannot be mapped");
	all("memory", everybody, PEEK, place, NULL, 55, -1);
	all("memory", everybody, PEEK, place + 8192, NULL, 55, -1);
	if (write(to_child[1], "?", 1) != 1 || read(from_child[0], &c, 1) != 1 || c != 1)
		victim_fail("the memory of D");

	if (ask(THREAD, OPEN, NEW_FD, NULL) || ask(C, OPEN, NEW_FD + 1, NULL))
		victim_fail("open");
	all("descriptors", first, FLAGS, NEW_FD, NULL, 0, -EBADF);
	all("descriptors", a, FLAGS, NEW_FD + 1, NULL, 0, -EBADF);
	if (ask(B, CHDIR, 0, "below"))
		victim_fail("chdir");
	all("working directory", first, CWD, 0, "/below", 1, 0);
	all("handlers", everybody, HANDLED, 0, NULL, 0, -1);
	if (ask(B, HANDLE, 1, NULL))
		victim_fail("sigaction");
	all("handlers", first, HANDLED, 0, NULL, 1, 0);
	all("a signal that waits", BIT(A), WAITING, 0, NULL, 1, 0);
	all("limits", a, LIMIT, 0, NULL, 1234, 0);
	all("users", a, USER, 0, NULL, 65534, getuid());
	all("dumpable", everybody, DUMPABLE, 0, NULL, 1, -1);
}

static int to_stranger[2][2], from_stranger[2][2];

/* What a stranger is asked for: sets the number, says what it is, opens a file, ends; else whether a descriptor is open. */
static void *stranger(void *argument)
{
	long i = (long)argument;
	char c;

	while (read(to_stranger[i][0], &c, 1) == 1) {
		if (c == 'q')
			_exit(0);
		if (c == 's')
			c = (copied = COPY) == COPY;
		else if (c == 'g')
			c = copied == COPY;
		else if (c == 'o')
			c = open("/dev/null", O_RDONLY);
		else
			c = fcntl(c, F_GETFD) != -1;
		if (write(from_stranger[i][1], &c, 1) != 1)
			break;
	}
	_exit(3);
}

static int of_stranger(int i, char what)
{
	char c = -1;

	if (write(to_stranger[i][1], &what, 1) != 1 || read(from_stranger[i][0], &c, 1) != 1)
		victim_fail("stranger %d does not answer", i);
	return c;
}

/* The second is made by the first, and a child of the parent. */
static void strangers(void)
{
	pid_t strangers[2];
	int fd, status;

	for (int i = 0; i < 2; i++)
		if (pipe(to_stranger[i]) || pipe(from_stranger[i]))
			victim_die("pipes");
	strangers[0] = fork();
	if (strangers[0] == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		strangers[1] = sharing_process(CLONE_PARENT | CLONE_FILES | CLONE_FS | CLONE_SIGHAND, stranger, (void *)1);
		if (write(from_stranger[0][1], &strangers[1], sizeof(pid_t)) != sizeof(pid_t))
			_exit(3);
		stranger((void *)0);
	}
	if (read(from_stranger[0][0], &strangers[1], sizeof(pid_t)) != sizeof(pid_t))
		victim_die("children");

	victim_ready();
	if (sabotage)
		of_stranger(1, 's');
	victim_wait();
	if (of_stranger(0, 'g') || !of_stranger(1, 's') || !of_stranger(0, 'g') || copied == COPY)
		victim_fail("memory is not shared by the two, and by nobody else");
	fd = of_stranger(0, 'o');
	if (!of_stranger(1, fd) || fcntl(fd, F_GETFD) != -1)
		victim_fail("descriptors are not shared by the two, and by nobody else");
	for (int i = 0; i < 2; i++)
		if (write(to_stranger[i][1], "q", 1) != 1 || waitpid(strangers[i], &status, 0) != strangers[i] || status)
			victim_fail("stranger %d ended with %#x", i, status);
	victim_ok();
}

/* Two share descriptors with nobody but each other: a child, and a child of another child, from which both had them. */
static void niece(void)
{
	static const int flags[] = { CLONE_FILES, CLONE_FILES | CLONE_PARENT };
	char c = 0;

	if (pipe(to_child))
		victim_die("pipe");
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 0; i < 2; i++) {
			if (syscall(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0))
				continue;
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		if (unshare(CLONE_FILES) || write(to_child[1], &c, 1) != 1)
			_exit(3);
		for (;;)
			pause();
	}
	if (read(to_child[0], &c, 1) != 1)
		victim_die("children");
	victim_ready();
	victim_wait();
	victim_ok();
}

static void end(int who)
{
	int status = 0;

	tell(who, END, who, NULL);
	if (waitpid(pids[who], &status, 0) != pids[who] || status != who << 8)
		victim_fail("number %d ended with %#x", who, status);
}

int main(int argc, char **argv)
{
	struct rlimit none = { 0, RLIM_INFINITY };
	struct sigaction action = { .sa_handler = handler };
	sigset_t set;

	victim_init(argc, argv);
	if (victim_argc > 1 && !strcmp(victim_argv[1], "strangers"))
		strangers();
	if (victim_argc > 1 && !strcmp(victim_argv[1], "niece"))
		niece();
	if (victim_argc > 1 && !strcmp(victim_argv[1], "vfork") && vfork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		victim_ready();
		for (;;)
			pause();
	}
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGWINCH, &action, NULL);
	sigaction(SIGURG, &action, NULL);
	getrlimit(RLIMIT_CORE, &none);
	none.rlim_cur = 0;
	if (mkdir("below", 0755) || pipe(to_child) || pipe(from_child) || setrlimit(RLIMIT_CORE, &none))
		victim_die("files");
	pids[FIRST] = getpid();
	pids[A] = sharing_process(0, run, (void *)A);
	pids[B] = pids[THREAD] = sharing_process(CLONE_FILES | CLONE_FS | CLONE_SIGHAND, run, (void *)B);
	pthread_mutex_lock(&mutex);
	while (ready < ALL - 1)
		pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
	prctl(PR_SET_DUMPABLE, 1);

	victim_ready();
	if (sabotage) {
		none.rlim_cur = 1;
		prlimit(pids[B], RLIMIT_CORE, &none, NULL);
	}
	victim_wait();
	check();
	/* Each by itself: who is killed by the end of a parent may have the mutex. */
	tell(C, END, C, NULL);
	if (ask(A, REAP, pids[C], NULL) != C << 8)
		victim_fail("the end of C");
	end(A);
	end(B);
	victim_ok();
}
