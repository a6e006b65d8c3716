// files is the tree of the golden image of that name: a process, a child with descriptors of its own for the same files, and one
// that shares the descriptor table. It prints "ready" and sleeps.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(x) do { if ((long)(x) < 0) { perror(#x); exit(1); } } while (0)

static void watch(int ep, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u64 = 0x100 + fd};
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
}

int main(void)
{
	MUST(close_range(3, ~0U, 0));
	int p[2], dir, f, e;
	MUST(mkdir("dir", 0711));
	MUST(dir = open("dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	MUST(f = open("append", O_WRONLY | O_CREAT | O_APPEND, 0600));
	MUST(write(f, "0123456789", 10));
	MUST(open("append", O_PATH));
	MUST(open("append", O_RDONLY | O_NOATIME));
	MUST(fcntl(f, F_SETFL, O_APPEND | O_NONBLOCK));
	MUST(open("/dev/zero", O_RDONLY));
	MUST(open("/dev/full", O_WRONLY));
	MUST(open("/dev/urandom", O_RDONLY));

	MUST(pipe2(p, O_NONBLOCK | O_CLOEXEC)); // CRIU refuses packets, O_DIRECT
	MUST(write(p[1], "one", 3));
	MUST(fcntl(p[1], F_SETPIPE_SZ, 1 << 20));
	MUST(pipe(p)); // nobody writes
	MUST(write(p[1], "last words", 10));
	close(p[1]);
	MUST(pipe(p)); // nobody reads
	close(p[0]);
	MUST(fcntl(p[1], F_SETOWN, getpid()));
	MUST(fcntl(p[1], F_SETSIG, SIGRTMIN));
	MUST(mkfifo("fifo", 0600));
	int q;
	MUST(q = open("fifo", O_RDONLY | O_NONBLOCK));
	int w;
	MUST(w = open("fifo", O_WRONLY | O_CLOEXEC));
	MUST(write(w, "fifo", 4));

	MUST(e = eventfd(0, EFD_SEMAPHORE));
	uint64_t big = 0x1234567890;
	MUST(write(e, &big, 8));
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMAX);
	int s, t, t2;
	MUST(s = signalfd(-1, &set, SFD_NONBLOCK));
	MUST(t = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK));
	struct itimerspec its = {.it_interval = {100000, 0}, .it_value = {0, 1000}};
	MUST(timerfd_settime(t, 0, &its, NULL));
	while (1) { // until it has expired once
		struct itimerspec now;
		MUST(timerfd_gettime(t, &now));
		if (now.it_value.tv_sec > 1)
			break;
	}
	MUST(t2 = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC));

	// Two epoll files inside a third that was made before them.
	int outer, in1, in2;
	MUST(outer = epoll_create1(0));
	MUST(in1 = epoll_create1(EPOLL_CLOEXEC));
	MUST(in2 = epoll_create1(0));
	watch(in1, e, EPOLLIN);
	watch(in1, t, EPOLLIN | EPOLLONESHOT);
	watch(in2, in1, EPOLLIN);
	watch(in2, s, EPOLLIN);
	watch(outer, in2, EPOLLIN | EPOLLET);
	watch(outer, q, EPOLLIN);
	MUST(epoll_create1(0)); // watches nothing

	MUST(dup2(f, 200));
	MUST(dup3(f, 201, O_CLOEXEC));
	MUST(chdir("dir"));
	pid_t pid = fork();
	MUST(pid);
	if (pid == 0) {
		close(200);
		MUST(chdir("/"));
		for (;;)
			pause();
	}
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	MUST(pid);
	if (pid == 0)
		for (;;)
			pause();
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
