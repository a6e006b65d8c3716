/*
 * ends: pipes and fifos whose ends are not a plain pair: a reader without a writer and a writer without a reader, with data;
 * ends that were opened once more, and for both directions; one that is full; an empty one of another capacity;
 * fifos, one without a writer; and pipes whose owner gets a signal when there is something to read.
 *
 * With the argument "all" also what CRIU 4.2 refuses: packet mode, and packets that wait to be read.
 */
#include "victim.h"
#include <sys/stat.h>

enum { PAGE = 4096, ROUND = 65536 };

static int readless[2], writerless[2], again[2], both, packets[2], full[2], tiny[2], told[2], lone, fifo_in, fifo_out;
static bool all;
static char buffer[2 * ROUND];

static void make(int ends[2], int flags)
{
	if (pipe2(ends, flags))
		victim_die("pipe2");
}

static void put(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		victim_die("write %s", text);
}

static int reopen(int fd, int flags)
{
	char name[64];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	fd = open(name, flags);
	if (fd < 0)
		victim_die("open %s", name);
	return fd;
}

static void set_up(void)
{
	struct f_owner_ex owner = { F_OWNER_PID, getpid() };

	make(writerless, O_CLOEXEC);
	put(writerless[1], "the rest");
	close(writerless[1]);
	make(readless, O_NONBLOCK);
	put(readless[1], "lost");
	close(readless[0]);
	make(again, O_NONBLOCK);
	put(again[1], "twice");
	again[0] = (close(again[0]), reopen(again[1], O_RDONLY | O_NONBLOCK | O_CLOEXEC));
	both = reopen(again[1], O_RDWR | O_NONBLOCK);
	if (all) {
		make(packets, O_DIRECT | O_NONBLOCK);
		put(packets[1], "one");
		put(packets[1], "three");
	}
	make(full, O_NONBLOCK);
	while (write(full[1], buffer, PAGE) == PAGE)
		;
	make(tiny, 0);
	if (fcntl(tiny[0], F_SETPIPE_SZ, PAGE) != PAGE)
		victim_die("F_SETPIPE_SZ");
	make(told, O_NONBLOCK);
	if (fcntl(told[0], F_SETOWN_EX, &owner) || fcntl(told[0], F_SETSIG, SIGRTMIN + 1) ||
	    fcntl(told[0], F_SETFL, fcntl(told[0], F_GETFL) | O_ASYNC))
		victim_die("an owner");
	if (mkfifo("lone", 0600) || mkfifo("pair", 0640))
		victim_die("mkfifo");
	lone = open("lone", O_RDONLY | O_NONBLOCK);
	int writer = open("lone", O_WRONLY | O_NONBLOCK);
	put(writer, "left over");
	close(writer);
	fifo_in = open("pair", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	fifo_out = open("pair", O_WRONLY);
	if (lone < 0 || fifo_in < 0 || fifo_out < 0)
		victim_die("open a fifo");
	put(fifo_out, "pair");
}

static void expect(int fd, const char *text, const char *what)
{
	ssize_t n = read(fd, buffer, sizeof(buffer));

	if (n != (ssize_t)strlen(text) || memcmp(buffer, text, n))
		victim_fail("%s: %zd bytes, not \"%s\"", what, n, text);
}

static void expect_none(int fd, const char *what)
{
	if (read(fd, buffer, 1) != -1 || errno != EAGAIN)
		victim_fail("%s: more than there was", what);
}

static void check_flags(int fd, int flags, int cloexec, const char *what)
{
	int now = fcntl(fd, F_GETFL) & ~O_LARGEFILE & ~0100000;

	if (now != flags || fcntl(fd, F_GETFD) != cloexec)
		victim_fail("%s: flags %#o, close on exec %d", what, now, fcntl(fd, F_GETFD));
}

static void check_told(void)
{
	struct f_owner_ex owner = { -1, 0 };
	struct timespec soon = { 5, 0 };
	siginfo_t info;
	sigset_t mask;

	if (fcntl(told[0], F_GETOWN_EX, &owner) || owner.type != F_OWNER_PID || owner.pid != getpid() || fcntl(told[0], F_GETSIG) != SIGRTMIN + 1)
		victim_fail("the owner is %d, type %d, signal %d", owner.pid, owner.type, fcntl(told[0], F_GETSIG));
	check_flags(told[0], O_RDONLY | O_NONBLOCK | O_ASYNC, 0, "a pipe with an owner");
	if (write(told[1], "x", 1) != 1)
		victim_fail("write: %s", strerror(errno));
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + 1);
	if (sigtimedwait(&mask, &info, &soon) != SIGRTMIN + 1 || info.si_fd != told[0] || info.si_code != POLL_IN)
		victim_fail("the owner was told of descriptor %d, code %d", info.si_fd, info.si_code);
}

static void check_packets(void)
{
	check_flags(packets[1], O_WRONLY | O_DIRECT | O_NONBLOCK, 0, "packet mode");
	put(packets[1], "last");
	expect(packets[0], "one", "the first packet");
	expect(packets[0], "three", "the second packet");
	expect(packets[0], "last", "the third packet");
	expect_none(packets[0], "packet mode");
}

static void check_full(void)
{
	ssize_t n, sum = 0;

	if (write(full[1], buffer, 1) != -1 || errno != EAGAIN)
		victim_fail("the full pipe is not full");
	while ((n = read(full[0], buffer, sizeof(buffer))) > 0)
		sum += n;
	if (sum != ROUND)
		victim_fail("the full pipe had %zd bytes", sum);
}

int main(int argc, char **argv)
{
	sigset_t mask;

	victim_init(argc, argv);
	all = victim_argc > 1 && !strcmp(victim_argv[1], "all");
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + 1);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	set_up();

	victim_ready();
	if (sabotage)
		expect(writerless[0], "the rest", "sabotage");
	victim_wait();

	expect(writerless[0], "the rest", "a pipe without writers");
	expect(writerless[0], "", "the end of a pipe without writers");
	check_flags(writerless[0], O_RDONLY, FD_CLOEXEC, "a pipe without writers");
	if (write(readless[1], "x", 1) != -1 || errno != EPIPE)
		victim_fail("a pipe without readers takes bytes");
	check_flags(again[0], O_RDONLY | O_NONBLOCK, FD_CLOEXEC, "an end that was opened once more");
	check_flags(both, O_RDWR | O_NONBLOCK, 0, "an end for both directions");
	expect(both, "twice", "an end for both directions");
	expect_none(again[0], "an end that was opened once more");
	put(both, "back");
	expect(again[0], "back", "the other end");
	if (all)
		check_packets();
	check_full();
	if (fcntl(tiny[1], F_GETPIPE_SZ) != PAGE)
		victim_fail("the empty pipe has room for %d", fcntl(tiny[1], F_GETPIPE_SZ));
	check_told();
	expect(lone, "left over", "a fifo without writers");
	expect(lone, "", "the end of a fifo without writers");
	check_flags(fifo_in, O_RDONLY | O_NONBLOCK, FD_CLOEXEC, "a fifo");
	check_flags(fifo_out, O_WRONLY, 0, "a fifo");
	expect(fifo_in, "pair", "a fifo");
	expect_none(fifo_in, "a fifo");
	victim_ok();
}
