/*
 * files: open files with a name. Flags and offsets of every sort, descriptions shared over dup and fork and others that are
 * not though they look alike, descriptors that close on exec, O_PATH, directories, a link itself, devices without a state,
 * a mapped file, another working directory and umask. A child has some of the descriptions and moves their offsets.
 */
#include "victim.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { SIZE = 10000, LIMIT = 900 }; /* the descriptor with the highest number */

static char text[SIZE];
static int ask[2], answer[2];

static struct {
	const char *what, *name;
	int flags;
	off_t at;
	bool cloexec;
	int fd, was;
} files[] = {
	{ "read only", "data", O_RDONLY, 100, true, 0, 0 },
	{ "the same once more", "data", O_RDONLY, 100, true, 0, 0 },
	{ "at the end", "data", O_RDONLY | O_NONBLOCK, SIZE, false, 0, 0 },
	{ "behind the end", "data", O_RDWR, 5000000000, true, 0, 0 },
	{ "write only", "scratch", O_WRONLY, 7, true, 0, 0 },
	{ "append", "scratch", O_RDWR | O_APPEND, 3, true, 0, 0 },
	{ "synchronous", "data", O_RDWR | O_SYNC, 0, true, 0, 0 },
	{ "data synchronous", "data", O_RDWR | O_DSYNC, 0, true, 0, 0 },
	{ "not followed", "data", O_RDONLY | O_NOFOLLOW | O_NOATIME, 9, true, 0, 0 },
	{ "path", "data", O_PATH, 0, true, 0, 0 },
	{ "path of a link", "link", O_PATH | O_NOFOLLOW, 0, true, 0, 0 },
	{ "path of a directory", "dir", O_PATH | O_DIRECTORY, 0, false, 0, 0 },
	{ "directory", "dir", O_RDONLY | O_DIRECTORY, 0, true, 0, 0 },
	{ "null", "/dev/null", O_RDWR, 0, true, 0, 0 },
	{ "zero", "/dev/zero", O_RDONLY, 0, false, 0, 0 },
	{ "full", "/dev/full", O_WRONLY | O_NONBLOCK, 0, true, 0, 0 },
	{ "random", "/dev/random", O_RDONLY | O_NONBLOCK, 0, true, 0, 0 },
	{ "urandom", "/dev/urandom", O_RDONLY, 0, true, 0, 0 },
	{ "proc", "/proc/version", O_RDONLY, 0, true, 0, 0 },
};
enum { COUNT = sizeof(files) / sizeof(*files), FIRST = 0, ALIKE = 1, APPEND = 5, DIRECTORY = 12, NULLDEV = 13, ZERO = 14, FULL = 15, URANDOM = 17 };

static int shared, high; /* further numbers of the first file */

/* The child reads from what it shares with its parent, when it is asked to, and tells what it has read. */
static void child(void)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(ask[1]);
	close(answer[0]);
	umask(0027);
	while (read(ask[0], &c, 1) == 1) {
		if (c == 'u')
			c = umask(0027) == 0027 ? 'y' : 'n';
		else if (read(files[FIRST].fd, &c, 1) != 1)
			c = 0;
		if (write(answer[1], &c, 1) != 1)
			_exit(3);
	}
	_exit(0);
}

static char of_child(char what)
{
	char c;

	if (write(ask[1], &what, 1) != 1 || read(answer[0], &c, 1) != 1)
		victim_fail("the child does not answer: %s", strerror(errno));
	return c;
}

static void set_up(void)
{
	int fd = open("data", O_CREAT | O_TRUNC | O_WRONLY, 0640);

	for (int i = 0; i < SIZE; i++)
		text[i] = victim_word(3, i);
	if (fd < 0 || write(fd, text, SIZE) != SIZE || close(fd))
		victim_die("a file");
	fd = open("scratch", O_CREAT | O_TRUNC | O_WRONLY, 0600);
	if (fd < 0 || write(fd, "scratch", 7) != 7 || close(fd))
		victim_die("another file");
	if (mkdir("dir", 0750) || mkdir("dir/one", 0700) || mkdir("dir/two", 0700) || symlink("data", "link"))
		victim_die("names");
	for (int i = 0; i < COUNT; i++) {
		files[i].fd = open(files[i].name, files[i].flags | (files[i].cloexec ? O_CLOEXEC : 0));
		if (files[i].fd < 0 || (files[i].at && lseek(files[i].fd, files[i].at, SEEK_SET) != files[i].at))
			victim_die("%s", files[i].what);
		files[i].was = fcntl(files[i].fd, F_GETFL);
	}
	shared = dup(files[FIRST].fd);
	high = fcntl(files[FIRST].fd, F_DUPFD_CLOEXEC, LIMIT);
	if (shared < 0 || high != LIMIT)
		victim_die("dup");
}

static void check_file(int i)
{
	int flags = fcntl(files[i].fd, F_GETFL), cloexec = fcntl(files[i].fd, F_GETFD);

	/* CRIU does not restore O_DIRECTORY, which means nothing for a file that is open. */
	if ((flags ^ files[i].was) & ~O_DIRECTORY)
		victim_fail("%s: flags %#o, were %#o", files[i].what, flags, files[i].was);
	if (cloexec != (files[i].cloexec ? FD_CLOEXEC : 0))
		victim_fail("%s: close on exec is %d", files[i].what, cloexec);
	if (!(flags & O_PATH) && files[i].name[0] != '/' && lseek(files[i].fd, 0, SEEK_CUR) != files[i].at)
		victim_fail("%s: at %lld", files[i].what, (long long)lseek(files[i].fd, 0, SEEK_CUR));
}

/* Whoever reads by one number of a description moves the others, and nobody else. */
static void check_shared(void)
{
	char c = 0;

	if (read(shared, &c, 1) != 1 || c != text[100])
		victim_fail("a duplicate reads something else");
	if (read(high, &c, 1) != 1 || c != text[101] || lseek(files[FIRST].fd, 0, SEEK_CUR) != 102)
		victim_fail("duplicates do not share an offset");
	if (of_child('r') != text[102] || lseek(shared, 0, SEEK_CUR) != 103)
		victim_fail("the child does not share the offset");
	if (lseek(files[ALIKE].fd, 0, SEEK_CUR) != 100)
		victim_fail("files that look alike have become one");
	if (fcntl(shared, F_GETFD) != 0 || fcntl(high, F_GETFD) != FD_CLOEXEC)
		victim_fail("duplicates have other flags");
}

static void check_content(const char *mapped)
{
	struct stat st;
	char c = 1;
	int entries = 0, fd;
	DIR *dir;

	if (memcmp(mapped, text, SIZE))
		victim_fail("the mapped file has changed");
	if (write(files[APPEND].fd, "more", 4) != 4 || lseek(files[APPEND].fd, 0, SEEK_CUR) != 11)
		victim_fail("what is appended does not go to the end");
	dir = fdopendir(dup(files[DIRECTORY].fd));
	while (dir && readdir(dir))
		entries++;
	if (entries != 4)
		victim_fail("the directory has %d entries", entries);
	if (write(files[NULLDEV].fd, "x", 1) != 1 || read(files[NULLDEV].fd, &c, 1) != 0)
		victim_fail("/dev/null is something else");
	if (read(files[ZERO].fd, &c, 1) != 1 || c)
		victim_fail("/dev/zero is something else");
	if (write(files[FULL].fd, "x", 1) != -1 || errno != ENOSPC)
		victim_fail("/dev/full is something else");
	if (read(files[URANDOM].fd, &c, 1) != 1)
		victim_fail("/dev/urandom is something else");
	if (fstat(files[10].fd, &st) || !S_ISLNK(st.st_mode))
		victim_fail("the link has become what it leads to");
	fd = openat(files[11].fd, "one", O_PATH);
	if (fd < 0)
		victim_fail("the path of a directory leads nowhere: %s", strerror(errno));
}

/* A file that is there when its process is. */
static void check_own(int fd)
{
	char said[4096] = "", *pid;

	if (lseek(fd, 0, SEEK_CUR) != 5 || fcntl(fd, F_GETFD) != FD_CLOEXEC)
		victim_fail("/proc/self/status is at %lld", (long long)lseek(fd, 0, SEEK_CUR));
	if (pread(fd, said, sizeof(said) - 1, 0) <= 0 || !(pid = strstr(said, "\nPid:\t")) || atoi(pid + 6) != getpid())
		victim_fail("/proc/self/status is another process's: %s", said);
}

int main(int argc, char **argv)
{
	pid_t pid;
	int status = 0, own;
	char *mapped, cwd[4096] = "";

	victim_init(argc, argv);
	umask(0);
	set_up();
	if (pipe2(ask, O_CLOEXEC) || pipe2(answer, O_CLOEXEC) || (pid = fork()) < 0)
		victim_die("a child");
	if (pid == 0)
		child();
	close(ask[0]);
	close(answer[1]);
	umask(0123);
	mapped = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, files[2].fd, 0);
	if (mapped == MAP_FAILED || chdir("dir/one"))
		victim_die("a mapping, or a directory");
	own = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (own < 0 || lseek(own, 5, SEEK_SET) != 5 || dup(own) < 0)
		victim_die("/proc/self/status");

	victim_ready();
	if (sabotage)
		lseek(shared, 99, SEEK_SET);
	victim_wait();

	for (int i = 0; i < COUNT; i++)
		check_file(i);
	check_shared();
	check_content(mapped);
	check_own(own);
	if (umask(0) != 0123 || of_child('u') != 'y')
		victim_fail("a umask has changed");
	if (!getcwd(cwd, sizeof(cwd)) || strlen(cwd) < 8 || strcmp(cwd + strlen(cwd) - 8, "/dir/one"))
		victim_fail("the working directory is %s", cwd);
	close(ask[1]);
	if (waitpid(pid, &status, 0) != pid || status)
		victim_fail("the child ended with %#x", status);
	victim_ok();
}
