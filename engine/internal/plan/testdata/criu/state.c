// state is the process of the golden image of that name: threads, memory, signals, timers, credentials and attributes of all
// sorts, but no files. It prints "ready" and sleeps.
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/membarrier.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <linux/capability.h>
#include <time.h>
#include <unistd.h>

#define MUST(x) do { if ((long)(x) < 0) { perror(#x); exit(1); } } while (0)

static pthread_barrier_t there;
static pid_t tid;

static void handler(int sig) { (void)sig; }

static void *thread(void *arg)
{
	tid = gettid();
	prctl(PR_SET_NAME, "w\303\266rker\n1");
	stack_t ss = {.ss_sp = malloc(SIGSTKSZ), .ss_size = SIGSTKSZ};
	MUST(sigaltstack(&ss, NULL));
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	union sigval v = {.sival_ptr = (void *)0x1122334455667788};
	MUST(pthread_sigqueue(pthread_self(), SIGRTMIN + 2, v));
	MUST(pthread_kill(pthread_self(), SIGUSR2));
	MUST(prctl(PR_SET_PDEATHSIG, SIGHUP));
	pthread_barrier_wait(&there);
	for (;;)
		pause();
	return arg;
}

int main(void)
{
	MUST(close_range(3, ~0U, 0));
	MUST(personality(ADDR_NO_RANDOMIZE | SHORT_INODE));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	MUST(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
	umask(0);
	struct rlimit rl = {.rlim_cur = 1 << 20, .rlim_max = RLIM_INFINITY};
	MUST(setrlimit(RLIMIT_CORE, &rl));
	MUST(setpriority(PRIO_PROCESS, 0, 5));
	int f = open("/proc/self/oom_score_adj", O_WRONLY);
	MUST(write(f, "500", 3));
	close(f);

	// Memory.
	char *m = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(m, 1, 16 * 4096);
	MUST(mlock(m, 4096));
	MUST(mprotect(m + 2 * 4096, 4096, PROT_READ));
	MUST(mprotect(m + 4 * 4096, 4096, PROT_NONE));
	MUST(madvise(m + 6 * 4096, 4096, MADV_DONTFORK));
	MUST(madvise(m + 8 * 4096, 4096, MADV_DONTDUMP));
	MUST(madvise(m + 10 * 4096, 4096, MADV_WIPEONFORK));
	madvise(m + 12 * 4096, 4096, MADV_MERGEABLE);
	madvise(m + 14 * 4096, 4096, 102 /* MADV_GUARD_INSTALL */);
	MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0));
	MUST(mmap(NULL, 1UL << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	f = open("mapped", O_RDWR | O_CREAT, 0600);
	MUST(ftruncate(f, 4 * 4096));
	m = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 4096);
	m[0] = 'c';
	MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 3 * 4096));
	MUST(mmap(NULL, 4096, PROT_READ, MAP_SHARED, f, 0));
	close(f);

	// Signals and timers.
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK | SA_NODEFER};
	sigaddset(&sa.sa_mask, SIGRTMAX);
	MUST(sigaction(SIGRTMAX, &sa, NULL));
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(kill(getpid(), SIGUSR1));
	struct itimerval it = {.it_interval = {10, 999999}, .it_value = {1000, 1}};
	MUST(setitimer(ITIMER_VIRTUAL, &it, NULL));
	MUST(setitimer(ITIMER_PROF, &it, NULL));

	MUST(pthread_barrier_init(&there, NULL, 2));
	pthread_t th;
	if (pthread_create(&th, NULL, thread, NULL))
		exit(1);
	pthread_barrier_wait(&there);
	timer_t timer;
	struct itimerspec its = {.it_interval = {3, 4}, .it_value = {5000, 6}};
	struct sigevent sev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 9};
	sev._sigev_un._tid = tid;
	MUST(timer_create(CLOCK_BOOTTIME, &sev, &timer));
	MUST(timer_settime(timer, 0, &its, NULL));
	sev = (struct sigevent){.sigev_notify = SIGEV_NONE};
	MUST(timer_create(CLOCK_REALTIME, &sev, &timer));
	MUST(timer_delete(timer));
	MUST(timer_create(CLOCK_REALTIME, &sev, &timer));

	// Who it is: still root, since CRIU needs more rights for others than root has everywhere; but a smaller one.
	gid_t groups[] = {7, 42};
	MUST(setgroups(2, groups));
	setfsgid(3); // the others decide who may read the limits
	MUST(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS));
	MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0));
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	MUST(syscall(SYS_capget, &hdr, data));
	data[0].inheritable = 1 << CAP_NET_BIND_SERVICE;
	data[0].permitted &= ~(1 << CAP_SYS_BOOT);
	data[0].effective &= ~(1 << CAP_SYS_BOOT | 1 << CAP_SYS_NICE);
	MUST(syscall(SYS_capset, &hdr, data));
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
