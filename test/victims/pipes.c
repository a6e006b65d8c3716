/*
 * pipes: a pipe to a child and one back. Each pipe has bytes in it at all times: the child returns every word it gets,
 * one behind. Beside them a pipe of changed size with data and without a reader in any other process, and a fifo.
 */
#include "victim.h"
#include <sys/prctl.h>
#include <sys/stat.h>

enum { HELD = 100000, SIZE = 262144 };

static int out[2], in[2];

static void echo(void)
{
	uint64_t held = 0, word;
	bool first = true;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(out[1]);
	close(in[0]);
	while (read(out[0], &word, sizeof(word)) == sizeof(word)) {
		if (!first && write(in[1], &held, sizeof(held)) != sizeof(held))
			_exit(3);
		held = word;
		first = false;
	}
	_exit(0);
}

static void put(uint64_t position)
{
	uint64_t word = victim_word(7, position);

	if (write(out[1], &word, sizeof(word)) != sizeof(word))
		victim_fail("write to the child: %s", strerror(errno));
}

static void get(uint64_t position)
{
	uint64_t word = 0;

	if (read(in[0], &word, sizeof(word)) != sizeof(word) || word != victim_word(7, position))
		victim_fail("word %llu has not come back as it was", (unsigned long long)position);
}

int main(int argc, char **argv)
{
	static char data[HELD], back[HELD];
	int held[2], fifo, status = 0;
	pid_t child;

	victim_init(argc, argv);
	if (pipe2(out, O_CLOEXEC) || pipe2(in, O_CLOEXEC) || pipe2(held, O_CLOEXEC | O_NONBLOCK))
		victim_die("pipe2");
	child = fork();
	if (child < 0)
		victim_die("fork");
	if (child == 0)
		echo();
	close(out[0]);
	close(in[1]);
	for (uint64_t i = 0; i < 10; i++)
		put(i);
	get(0);

	for (size_t i = 0; i < HELD; i++)
		data[i] = victim_word(8, i);
	if (fcntl(held[1], F_SETPIPE_SZ, SIZE) != SIZE || write(held[1], data, HELD) != HELD)
		victim_die("a pipe with %d bytes", HELD);
	if (mkfifo("pipes.fifo", 0600) || (fifo = open("pipes.fifo", O_RDWR | O_CLOEXEC | O_NONBLOCK)) < 0 ||
	    write(fifo, "fifo", 4) != 4)
		victim_die("a fifo");

	victim_ready();
	if (sabotage && read(held[0], back, 1) != 1)
		victim_die("sabotage");
	victim_wait();

	put(10);
	for (uint64_t i = 1; i < 10; i++)
		get(i);
	if (fcntl(held[0], F_GETPIPE_SZ) != SIZE)
		victim_fail("the pipe's size has changed to %d", fcntl(held[0], F_GETPIPE_SZ));
	if (!(fcntl(held[0], F_GETFL) & O_NONBLOCK) || !(fcntl(held[0], F_GETFD) & FD_CLOEXEC))
		victim_fail("the pipe's flags have changed");
	if (read(held[0], back, HELD) != HELD || memcmp(data, back, HELD))
		victim_fail("the pipe's data have changed");
	if (read(held[0], back, 1) != -1 || errno != EAGAIN)
		victim_fail("the pipe has more in it than before");
	if (read(fifo, back, 8) != 4 || memcmp(back, "fifo", 4))
		victim_fail("the fifo's data have changed");
	unlink("pipes.fifo");
	close(out[1]);
	if (waitpid(child, &status, 0) != child || status)
		victim_fail("the child ended with %#x", status);
	victim_ok();
}
