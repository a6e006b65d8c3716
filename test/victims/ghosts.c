/*
 * ghosts [linked]: files whose names are gone, open, mapped, and somebody's working directory: with holes, owners and modes of their own, of
 * the same name, in a directory that is gone too, whose name another file has now, that never had a name, a fifo, a directory, a
 * symbolic link.
 * The check is that they are what they were, that those that were one file still are, and that there is no name of them. With
 * "linked" there is one that has another name, under which it is still the same.
 */
#include "victim.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, PAGES = 10, SIZE = PAGES * PAGE, FIRST = 2, SECOND = 8 };

static int largest = 1 << 28; /* a hole that no image should have in it */

/* What stat says of a file that must stay. */
static void check_stat(const char *what, int fd, const struct stat *before)
{
	struct stat now;

	if (fstat(fd, &now)) {
		victim_fail("%s: fstat: %s", what, strerror(errno));
		return;
	}
	if (now.st_nlink != 0)
		victim_fail("%s: it has a name", what);
	if (now.st_mode != before->st_mode || now.st_uid != before->st_uid || now.st_gid != before->st_gid)
		victim_fail("%s: mode %o, owner %u, group %u; it was mode %o, owner %u, group %u", what, now.st_mode, now.st_uid, now.st_gid,
			    before->st_mode, before->st_uid, before->st_gid);
	if (!S_ISREG(before->st_mode))
		return;
	if (now.st_size != before->st_size || now.st_blocks > before->st_blocks)
		victim_fail("%s: %ld bytes in %ld blocks, it was %ld in %ld", what, (long)now.st_size, (long)now.st_blocks, (long)before->st_size,
			    (long)before->st_blocks);
	if (now.st_mtim.tv_sec != before->st_mtim.tv_sec || now.st_mtim.tv_nsec / 1000 != before->st_mtim.tv_nsec / 1000)
		victim_fail("%s: it was changed at another time", what);
}

static void check_flags(const char *what, int fd, int want)
{
	const int large = 0100000; /* which C libraries set, and do not tell */

	if ((fcntl(fd, F_GETFL) & ~large) != want)
		victim_fail("%s: its flags are %#o, and were %#o", what, fcntl(fd, F_GETFL), want);
}

static int make(const char *name, int flags, mode_t mode)
{
	int fd = open(name, flags | O_CREAT | O_EXCL, mode);

	if (fd < 0)
		victim_die("%s", name);
	return fd;
}

static void put(int fd, const void *data, size_t size, off_t at)
{
	if (pwrite(fd, data, size, at) != (ssize_t)size)
		victim_die("pwrite");
}

static void fill(int fd, int page, uint64_t seed)
{
	uint64_t words[PAGE / 8];

	for (int i = 0; i < PAGE / 8; i++)
		words[i] = victim_word(seed, i);
	put(fd, words, PAGE, page * PAGE);
}

static void check_page(const char *what, const char *p, uint64_t seed)
{
	const uint64_t *words = (const uint64_t *)p;

	for (int i = 0; i < PAGE / 8; i++) {
		if (words[i] != (seed ? victim_word(seed, i) : 0)) {
			victim_fail("%s: word %d has changed", what, i);
			return;
		}
	}
}

static char *map(int fd, size_t size, int prot, int flags)
{
	char *p = mmap(NULL, size, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		victim_die("mmap");
	return p;
}

static void gone(const char *name)
{
	if (unlink(name))
		victim_die("unlink %s", name);
}

/* A file that two descriptions and three mappings have, with holes, an owner and a mode. */
static struct {
	int rw, append, reader, name;
	char *shared, *private, *readonly;
	struct stat st;
} many;

static void make_many(void)
{
	const struct timespec times[2] = { { 1500000000, 123456000 }, { 1400000000, 654321000 } };

	many.rw = make("many", O_RDWR, 0600);
	if (ftruncate(many.rw, SIZE))
		victim_die("ftruncate");
	fill(many.rw, FIRST, 1);
	fill(many.rw, SECOND, 2);
	many.append = open("many", O_WRONLY | O_APPEND);
	many.reader = open("many", O_RDONLY | O_NOFOLLOW | O_NONBLOCK); /* as shm_open does */
	many.name = open("many", O_PATH | O_NOFOLLOW);
	many.shared = map(many.rw, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	many.private = map(many.rw, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	many.readonly = map(many.reader, SIZE, PROT_READ, MAP_SHARED);
	many.private[4 * PAGE] = 'p';
	many.private[FIRST * PAGE] ^= 1;
	if (lseek(many.rw, 1234, SEEK_SET) != 1234 || lseek(many.reader, 4321, SEEK_SET) != 4321)
		victim_die("lseek");
	if (fchmod(many.rw, 0640) || fsync(many.rw) || futimens(many.rw, times) || fstat(many.rw, &many.st))
		victim_die("a file");
	gone("many");
	many.st.st_nlink = 0;
}

static void check_many(void)
{
	char buf[3] = "";

	check_stat("many", many.rw, &many.st);
	check_stat("many, to append", many.append, &many.st);
	check_stat("many, to read", many.reader, &many.st);
	check_stat("many, its name", many.name, &many.st);
	check_flags("many", many.rw, O_RDWR);
	check_flags("many, to append", many.append, O_WRONLY | O_APPEND);
	check_flags("many, to read", many.reader, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	check_flags("many, its name", many.name, O_PATH | O_NOFOLLOW);
	for (int i = 0; i < PAGES; i++)
		check_page("many, shared", many.shared + i * PAGE, i == FIRST ? 1 : i == SECOND ? 2 : 0);
	if (many.private[4 * PAGE] != 'p')
		victim_fail("many, private: its own page has changed");
	many.private[4 * PAGE] = 0;
	many.private[FIRST * PAGE] ^= 1;
	for (int i = 0; i < PAGES; i++)
		check_page("many, private", many.private + i * PAGE, i == FIRST ? 1 : i == SECOND ? 2 : 0);
	if (lseek(many.rw, 0, SEEK_CUR) != 1234 || lseek(many.reader, 0, SEEK_CUR) != 4321)
		victim_fail("many: its offsets are others");
	/* All of them are one file. */
	many.shared[PAGE] = 'a';
	put(many.rw, "b", 1, PAGE + 1);
	if (pread(many.reader, buf, 2, PAGE) != 2 || strcmp(buf, "ab") || memcmp(many.readonly + PAGE, "ab", 2) || memcmp(many.private + PAGE, "ab", 2))
		victim_fail("many: what is written to one is not in the others");
	if (write(many.append, "c", 1) != 1 || pread(many.rw, buf, 1, SIZE) != 1 || buf[0] != 'c')
		victim_fail("many: what is appended is not at its end");
}

/* Two files that had the same name, of which there are mappings alone. */
static char *twins[2];

static void make_twins(void)
{
	for (int i = 0; i < 2; i++) {
		int fd = make("twin", O_RDWR, 0600);

		fill(fd, 0, 10 + i);
		twins[i] = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
		close(fd);
		gone("twin");
	}
}

/* Files that only stay as they are. */
static struct {
	const char *name;
	int fd;
	struct stat st;
} plain[9];
static int count;

static void keep(const char *name, int fd)
{
	plain[count].name = name;
	plain[count].fd = fd;
	if (fd < 0 || fstat(fd, &plain[count].st))
		victim_die("%s", name);
	plain[count++].st.st_nlink = 0;
}

static int hole, inner, taken, temporary, fifo, slink;

static void make_plain(void)
{
	int fd;

	keep("empty", make("empty", O_RDWR, 0604));
	gone("empty");

	hole = make("hole", O_RDWR, 0600);
	if (ftruncate(hole, largest))
		victim_die("ftruncate");
	keep("hole", hole);
	gone("hole");

	if (mkdir("outer", 0700))
		victim_die("outer");
	inner = make("outer/inner", O_RDWR, 0600);
	put(inner, "inner", 5, 0);
	keep("inner", inner);
	gone("outer/inner");
	if (rmdir("outer"))
		victim_die("rmdir");

	/* Its name is another's now, which is none of its business. */
	taken = make("taken", O_RDWR, 0600);
	put(taken, "first", 5, 0);
	keep("taken", taken);
	gone("taken");
	fd = make("taken", O_RDWR, 0644);
	put(fd, "second", 6, 0);
	close(fd);

	temporary = open(".", O_TMPFILE | O_RDWR, 0600);
	if (temporary >= 0) {
		put(temporary, "temporary", 9, 0);
		keep("temporary", temporary);
	}

	fd = make("name", O_RDWR, 0600);
	keep("a name only", open("name", O_PATH));
	close(fd);
	gone("name");

	if (symlink("to/somewhere else", "link"))
		victim_die("symlink");
	slink = open("link", O_PATH | O_NOFOLLOW);
	keep("symbolic link", slink);
	gone("link");

	if (mkfifo("fifo", 0620))
		victim_die("mkfifo");
	fifo = open("fifo", O_RDWR);
	if (write(fifo, "in the fifo", 11) != 11)
		victim_die("fifo");
	keep("fifo", fifo);
	gone("fifo");

	if (mkdir("directory", 0750))
		victim_die("mkdir");
	keep("directory", open("directory", O_RDONLY | O_DIRECTORY));
	if (rmdir("directory"))
		victim_die("rmdir");
}

static void check_text(const char *what, int fd, const char *want)
{
	char buf[64] = "";

	if (pread(fd, buf, sizeof(buf), 0) != (ssize_t)strlen(want) || strcmp(buf, want))
		victim_fail("%s: there is %s in it", what, buf);
}

static void check_plain(void)
{
	char buf[64] = "";
	int fd;

	for (int i = 0; i < count; i++)
		check_stat(plain[i].name, plain[i].fd, &plain[i].st);
	check_text("inner", inner, "inner");
	check_text("taken", taken, "first");
	if (temporary >= 0)
		check_text("temporary", temporary, "temporary");
	if (read(fifo, buf, sizeof(buf)) != 11 || strcmp(buf, "in the fifo"))
		victim_fail("fifo: there is %s in it", buf);
	memset(buf, 0, sizeof(buf));
	if (readlinkat(slink, "", buf, sizeof(buf)) < 0 || strcmp(buf, "to/somewhere else"))
		victim_fail("symbolic link: it leads to %s", buf);
	check_flags("symbolic link", slink, O_PATH | O_NOFOLLOW);
	if (lseek(hole, 0, SEEK_DATA) != -1 || errno != ENXIO)
		victim_fail("hole: there is something in it");
	fd = open("taken", O_RDONLY);
	check_text("the file that has the name now", fd, "second");
	close(fd);
}

/* A file that has lost the name by which it was opened, and has another. */
static struct {
	int fd, reader;
	char *shared;
} linked = { .fd = -1 };

static void make_linked(void)
{
	linked.fd = make("linked", O_RDWR, 0600);
	fill(linked.fd, 0, 20);
	linked.reader = open("linked", O_RDONLY);
	linked.shared = map(linked.fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (lseek(linked.reader, 77, SEEK_SET) != 77 || link("linked", "other"))
		victim_die("linked");
	gone("linked");
}

static void check_linked(void)
{
	struct stat st, other;
	char byte;

	check_page("linked", linked.shared, 20);
	if (stat("other", &other) || fstat(linked.fd, &st) || st.st_ino != other.st_ino || st.st_nlink != 1)
		victim_fail("linked: it is not the file of the other name alone");
	if (fstat(linked.reader, &st) || st.st_ino != other.st_ino || lseek(linked.reader, 0, SEEK_CUR) != 77)
		victim_fail("linked, to read: it is another, or somewhere else");
	linked.shared[5] ^= 1;
	if (pread(linked.reader, &byte, 1, 5) != 1 || byte != linked.shared[5])
		victim_fail("linked: the mapping is of another");
}

/* There are no names but those that there were. */
static void check_names(void)
{
	const char *output = getenv("VICTIM_OUTPUT");
	DIR *here = opendir(".");
	struct dirent *e;

	output = output && strrchr(output, '/') ? strrchr(output, '/') + 1 : ".";
	while (here && (e = readdir(here)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "taken") && strcmp(e->d_name, output) &&
		    (linked.fd < 0 || strcmp(e->d_name, "other")))
			victim_fail("there is a file %s", e->d_name);
	closedir(here);
}

/* A child in a directory that is gone, which writes to a file of its parent's; the two have one offset. */
static pid_t child;
static int together, go[2];

static void make_child(void)
{
	char byte;

	together = make("together", O_RDWR, 0600);
	gone("together");
	if (pipe(go) || mkdir("under", 0711))
		victim_die("a child");
	child = fork();
	if (child == 0) {
		struct stat before;

		close(go[1]);
		if (chdir("under") || stat(".", &before) || rmdir("../under") || write(together, "ready ", 6) != 6 || read(go[0], &byte, 1) != 1)
			_exit(1);
		before.st_nlink = 0;
		check_stat("the child's directory", open(".", O_RDONLY | O_DIRECTORY), &before);
		if (open("x", O_CREAT | O_RDWR, 0600) >= 0 || errno != ENOENT)
			victim_fail("the child's directory is not gone");
		_exit(victim_failed || write(together, "child", 5) != 5);
	}
	close(go[0]);
	while (access("under", F_OK) == 0 || lseek(together, 0, SEEK_CUR) != 6)
		if (waitpid(child, NULL, WNOHANG) == child)
			victim_die("the child has ended");
}

static void check_child(void)
{
	int status;

	if (write(go[1], "x", 1) != 1 || waitpid(child, &status, 0) != child || status != 0)
		victim_fail("the child has ended with %#x", status);
	if (write(together, " parent", 7) != 7)
		victim_fail("together: it cannot be written to");
	check_text("together", together, "ready child parent");
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	make_many();
	make_twins();
	make_plain();
	if (victim_argc > 1)
		make_linked();
	make_child();

	victim_ready();
	if (sabotage)
		twins[0][17] ^= 1;
	victim_wait();

	check_names();
	check_many();
	for (int i = 0; i < 2; i++)
		check_page("twin", twins[i], 10 + i);
	check_plain();
	if (victim_argc > 1)
		check_linked();
	check_child();
	victim_ok();
}
