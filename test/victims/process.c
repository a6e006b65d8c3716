/*
 * process: what a program has beside memory, threads and files: arguments, environment, auxiliary vector, name, program,
 * heap, directory, umask, and the small attributes that prctl, personality and files of /proc set. A child has a signal
 * for its parent's death. With "criu" as an argument it leaves out what core dumps have, which CRIU
 * does not save, and the personality, which it does not restore.
 */
#include "victim.h"
#include <linux/membarrier.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

extern char **environ;

/* A file of /proc/self, or the target of a link there, as a string with its length. */
struct text {
	char bytes[65536];
	ssize_t length;
};

static struct text cmdline, environment, auxv, comm, exe, cwd, root, score, filter, login;
static const struct file {
	const char *name;
	struct text *text;
	bool link;
} files[] = {
	{ "/proc/self/cmdline", &cmdline, false }, { "/proc/self/environ", &environment, false },
	{ "/proc/self/auxv", &auxv, false },	   { "/proc/self/comm", &comm, false },
	{ "/proc/self/exe", &exe, true },	   { "/proc/self/cwd", &cwd, true },
	{ "/proc/self/root", &root, true },	   { "/proc/self/oom_score_adj", &score, false },
	{ "/proc/self/loginuid", &login, false },  { "/proc/self/coredump_filter", &filter, false },
};

static void look(const struct file *file, struct text *to)
{
	int fd;

	if (file->link) {
		to->length = readlink(file->name, to->bytes, sizeof(to->bytes));
		return;
	}
	fd = open(file->name, O_RDONLY | O_CLOEXEC);
	to->length = fd < 0 ? -1 : read(fd, to->bytes, sizeof(to->bytes));
	if (fd >= 0)
		close(fd);
}

static void put(const char *name, const char *value)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		victim_die("%s", name);
	close(fd);
}

static int asked_child(void)
{
	int death = 0;

	prctl(PR_GET_PDEATHSIG, &death);
	return death;
}

int main(int argc, char **argv)
{
	char dir[] = "process-XXXXXX";
	static struct text now;
	char *heap, *arg0 = argv[0];
	void *brk_before;
	int subreaper = 0, child, status, set_up[2];
	char byte;
	bool like_criu;
	mode_t mask;

	victim_init(argc, argv);
	if (!mkdtemp(dir) || chdir(dir))
		victim_die("a directory");
	umask(027);
	heap = sbrk(3 * 4096 + 123);
	if (heap == (void *)-1)
		victim_die("sbrk");
	memset(heap, 0x5a, 3 * 4096 + 123);
	brk_before = sbrk(0);
	setenv("VICTIM_PROCESS", "later", 1); /* this one is not where the kernel looks */
	memset(arg0, 'P', strlen(arg0));      /* and this is */
	if (prctl(PR_SET_NAME, "a name (of 15)!") || prctl(PR_SET_CHILD_SUBREAPER, 1) || prctl(PR_SET_DUMPABLE, 0) ||
	    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) || prctl(PR_SET_TIMERSLACK, 123456))
		victim_die("prctl");
	like_criu = victim_argc > 1 && strcmp(victim_argv[1], "criu") == 0;
	if (!like_criu && personality(ADDR_NO_RANDOMIZE | SHORT_INODE) < 0)
		victim_die("personality");
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
		victim_die("membarrier");
	put("/proc/self/oom_score_adj", "321");
	if (!like_criu)
		put("/proc/self/coredump_filter", "0x13");
	if (access("/proc/self/loginuid", F_OK) == 0)
		put("/proc/self/loginuid", "4711");
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		look(&files[i], files[i].text);
	if (pipe(set_up))
		victim_die("pipe");
	child = fork();
	if (child == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGURG) || prctl(PR_SET_DUMPABLE, 1) || write(set_up[1], "x", 1) != 1)
			_exit(1);
		close(set_up[0]);
		close(set_up[1]);
		victim_wait();
		if (asked_child() != SIGURG)
			victim_fail("the child's signal for its parent's death is %d", asked_child());
		if (prctl(PR_GET_DUMPABLE) != 1)
			victim_fail("the child's core dumps are %d, not 1", prctl(PR_GET_DUMPABLE));
		_exit(victim_failed);
	}
	if (child < 0)
		victim_die("fork");
	close(set_up[1]);
	if (read(set_up[0], &byte, 1) != 1)
		victim_die("the child");
	close(set_up[0]);

	victim_ready();
	if (sabotage) {
		umask(077);
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	}
	victim_wait();

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		look(&files[i], &now);
		if (now.length != files[i].text->length || (now.length > 0 && memcmp(now.bytes, files[i].text->bytes, now.length)))
			victim_fail("%s: %zd bytes, now %zd: \"%.60s\", now \"%.60s\"", files[i].name, files[i].text->length, now.length,
				    files[i].text->bytes, now.bytes);
	}
	if (getauxval(AT_PAGESZ) != 4096 || !getenv("VICTIM_PROCESS") || strcmp(getenv("VICTIM_PROCESS"), "later"))
		victim_fail("the environment in memory has changed");
	if (sbrk(0) != brk_before)
		victim_fail("the heap ends at %p, not %p", sbrk(0), brk_before);
	if (sbrk(4096) != brk_before)
		victim_fail("the heap does not grow where it ended");
	for (int i = 0; i < 3 * 4096 + 123; i++)
		if (heap[i] != 0x5a) {
			victim_fail("the heap has changed");
			break;
		}
	mask = umask(0);
	if (mask != 027)
		victim_fail("the umask is %03o", mask);
	if (prctl(PR_GET_CHILD_SUBREAPER, &subreaper) || subreaper != 1)
		victim_fail("it gets no orphans any more");
	if (prctl(PR_GET_DUMPABLE) != 0)
		victim_fail("core dumps are %d, not 0", prctl(PR_GET_DUMPABLE));
	if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) != 1)
		victim_fail("huge pages are allowed");
	if (!like_criu && personality(0xffffffff) != (ADDR_NO_RANDOMIZE | SHORT_INODE))
		victim_fail("the personality is %#x", personality(0xffffffff));
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
		victim_fail("it is not registered for membarrier any more");
	kill(child, SIGUSR1);
	if (waitpid(child, &status, 0) != child || status != 0)
		victim_fail("the child ended with %#x", status);
	chdir("..");
	rmdir(dir);
	victim_ok();
}
