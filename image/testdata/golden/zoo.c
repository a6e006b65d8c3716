// zoo is the process of the golden image of that name: one process with a thread and one of many kinds of things. It
// prints "ready" and sleeps.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MUST(x) do { if ((long)(x) < 0) { perror(#x); exit(1); } } while (0)

static void handler(int sig) { (void)sig; }

static void *thread(void *arg)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (;;)
		pause();
	return arg;
}

int main(void)
{
	// Nothing inherited but 0 to 2, so that slots are fixed and the test can name them.
	MUST(close_range(3, ~0U, 0));
	int p[2];
	MUST(pipe2(p, O_NONBLOCK));
	MUST(write(p[1], "in the pipe", 11));
	MUST(fcntl(p[1], F_SETPIPE_SZ, 8192));

	int e = eventfd(42, EFD_NONBLOCK);
	MUST(e);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	MUST(ep);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = 0x1122334455667788};
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, e, &ev));

	int t = timerfd_create(CLOCK_MONOTONIC, 0);
	MUST(t);
	struct itimerspec its = {.it_interval = {1000, 5}, .it_value = {100000, 7}};
	MUST(timerfd_settime(t, 0, &its, NULL));

	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 3);
	int s = signalfd(-1, &set, SFD_CLOEXEC);
	MUST(s);

	int f = open("regular", O_RDWR | O_CREAT | O_APPEND, 0640);
	MUST(f);
	MUST(write(f, "0123456789", 10));
	MUST(lseek(f, 4, SEEK_SET));
	int d = dup(f);
	MUST(d);

	MUST(mkfifo("fifo", 0600));
	int q = open("fifo", O_RDWR);
	MUST(q);
	MUST(write(q, "in the fifo", 11));

	int in = inotify_init1(IN_NONBLOCK);
	MUST(in);
	MUST(inotify_add_watch(in, "regular", IN_MODIFY));

	// Memory: a shared file mapping, locked pages, no access, no dump, sparse.
	MUST(ftruncate(f, 8192));
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
	MUST(m);
	m = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m[0] = 'A';
	m[2 * 4096] = 'C';
	MUST(mlock(m, 4096));
	MUST(mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	sigaddset(&sa.sa_mask, SIGHUP);
	MUST(sigaction(SIGTERM, &sa, NULL));
	signal(SIGPIPE, SIG_IGN);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	union sigval v = {.sival_int = 77};
	MUST(sigqueue(getpid(), SIGRTMIN + 3, v));

	struct itimerval it = {.it_interval = {3600, 1}, .it_value = {7200, 0}};
	MUST(setitimer(ITIMER_REAL, &it, NULL));
	timer_t timer;
	struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 5};
	MUST(timer_create(CLOCK_MONOTONIC, &sev, &timer));
	struct itimerspec pt = {.it_interval = {50, 0}, .it_value = {90000, 0}};
	MUST(timer_settime(timer, 0, &pt, NULL));

	struct rlimit rl = {.rlim_cur = 100, .rlim_max = 200};
	MUST(setrlimit(RLIMIT_NOFILE, &rl));
	umask(027);
	pthread_t th;
	if (pthread_create(&th, NULL, thread, NULL))
		exit(1);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
