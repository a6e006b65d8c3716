// victim has one of everything that /proc shows in a form of its own. record.sh captures it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MUST(x) must((long)(x), #x)

static long must(long v, const char *what)
{
	if (v < 0 && v > -4096) {
		perror(what);
		exit(1);
	}
	return v;
}

static char *map(int prot, int flags, int fd)
{
	return (char *)MUST(mmap(NULL, 16384, prot, flags, fd, 0));
}

static void *thread(void *arg)
{
	prctl(PR_SET_NAME, "second thread");
	for (;;)
		pause();
	return arg;
}

int main(void)
{
	MUST(close_range(3, ~0U, 0));
	umask(027);
	gid_t groups[] = {5, 70000, 4294967294U};
	MUST(setgroups(3, groups));
	// 3: flock, 4: POSIX lock and OFD lock, 5: lease
	int fd = MUST(open("locked", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(flock(fd, LOCK_EX));
	fd = MUST(open("locked2", O_RDWR | O_CREAT | O_APPEND, 0600));
	struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
	MUST(fcntl(fd, F_SETLK, &lk));
	lk.l_type = F_RDLCK, lk.l_start = 100, lk.l_len = 0;
	MUST(fcntl(fd, F_OFD_SETLK, &lk));
	MUST(lseek(fd, 77, SEEK_SET));
	close(MUST(open("leased", O_RDWR | O_CREAT, 0600)));
	MUST(fcntl(MUST(open("leased", O_RDONLY)), F_SETLEASE, F_RDLCK));
	// 6: eventfd, 7: epoll, 8: signalfd, 9: timerfd, 10: inotify, 11: pidfd, 12: O_PATH, 13: fanotify, 14 and 15: pipe
	int e = MUST(eventfd(0xabcdef, EFD_SEMAPHORE));
	int ep = MUST(epoll_create1(EPOLL_CLOEXEC));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = UINT64_MAX};
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, e, &ev));
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGRTMAX);
	MUST(signalfd(-1, &set, 0));
	int t = MUST(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK));
	struct itimerspec its = {.it_interval = {1000, 5}, .it_value = {100000, 7}};
	MUST(timerfd_settime(t, 0, &its, NULL));
	int in = MUST(inotify_init1(0));
	MUST(inotify_add_watch(in, "locked", IN_MODIFY));
	MUST(inotify_add_watch(in, ".", IN_CREATE | IN_DELETE));
	MUST(syscall(SYS_pidfd_open, getpid(), 0));
	MUST(open("locked", O_PATH));
	MUST(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY));
	int p[2];
	MUST(pipe2(p, O_DIRECT));

	// Mappings
	char *m = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	m[0] = 1;
	MUST(madvise(m, 4096, MADV_DONTFORK));
	MUST(madvise(m, 16384, MADV_DONTDUMP));
	MUST(mlock(m + 8192, 4096));
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1);
	map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	syscall(SYS_mlock2, map(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1), 4096, MLOCK_ONFAULT);
	madvise(map(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1), 16384, MADV_WIPEONFORK);
	m = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, m, 16384, "a name");
	const char *names[] = {"with blank", "with\nline feed", "with\\012escape", "really (deleted)", "gone"};
	for (int i = 0; i < 5; i++) {
		fd = MUST(open(names[i], O_RDWR | O_CREAT, 0600));
		MUST(ftruncate(fd, 16384));
		map(PROT_READ | PROT_EXEC, MAP_PRIVATE, fd);
		close(fd);
	}
	MUST(unlink("gone"));
	fd = MUST(memfd_create("a memfd", 0));
	MUST(ftruncate(fd, 16384));
	map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	close(fd);

	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	pthread_t th;
	if (pthread_create(&th, NULL, thread, NULL))
		exit(1);
	timer_t timer;
	struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_ptr = (void *)0xdeadbeef12345678};
	MUST(timer_create(CLOCK_MONOTONIC, &sev, &timer));
	sev.sigev_notify = SIGEV_THREAD_ID;
	sev._sigev_un._tid = getpid();
	MUST(timer_create(CLOCK_THREAD_CPUTIME_ID, &sev, &timer));
	sev.sigev_notify = SIGEV_NONE;
	MUST(timer_create(CLOCK_REALTIME, &sev, &timer));

	signal(SIGPIPE, SIG_IGN);
	kill(getpid(), SIGHUP);
	struct rlimit rl = {.rlim_cur = 100, .rlim_max = 200};
	MUST(setrlimit(RLIMIT_NOFILE, &rl));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	for (int i = 0; i < 2; i++)
		if (MUST(fork()) == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
	MUST(prctl(PR_SET_NAME, ") R\n\\n (x"));
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
