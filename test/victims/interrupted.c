/*
 * interrupted CALL [restart]: its main thread is in one blocking call after the other: pause, read, sleep, select, futex,
 * wait, suspend, epoll or sigwait. A handler is set for SIGRTMIN, with SA_RESTART or without. Asked, it says "handled H interrupted I":
 * how often the handler has run, and how often the call has failed with EINTR. Its own check is that no call failed
 * otherwise, or with EINTR though no handler had run.
 */
#include "victim.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

static volatile unsigned long handled, interrupted;
static int silence[2], watched;
static pthread_t main_thread;

static void on_signal(int signo)
{
	(void)signo;
	handled++;
}

/* Answers what the main thread, blocked, cannot. */
static void *answer(void *argument)
{
	sigset_t asking = *(sigset_t *)argument;
	int signo;

	for (;;) {
		sigwait(&asking, &signo);
		/* Spoiled, the main thread takes a handler's run for none: interrupt it until it has noticed. */
		while (signo == SIGUSR1 && sabotage && !victim_failed) {
			pthread_kill(main_thread, SIGRTMIN);
			usleep(1000);
		}
		if (signo == SIGUSR1)
			victim_ok();
		victim_say("handled %lu interrupted %lu", handled, interrupted);
	}
	return NULL;
}

static int call(const char *name)
{
	struct timespec long_time = { 100000, 0 };
	sigset_t mask;
	fd_set set;
	char c;
	int word = 0;

	if (strcmp(name, "pause") == 0)
		return pause();
	if (strcmp(name, "read") == 0)
		return read(silence[0], &c, 1);
	if (strcmp(name, "sleep") == 0)
		return nanosleep(&long_time, NULL);
	if (strcmp(name, "select") == 0) {
		FD_ZERO(&set);
		FD_SET(silence[0], &set);
		return select(silence[0] + 1, &set, NULL, NULL, NULL);
	}
	if (strcmp(name, "futex") == 0)
		return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	if (strcmp(name, "wait") == 0)
		return waitpid(-1, NULL, 0);
	if (strcmp(name, "epoll") == 0) {
		struct epoll_event event;

		return epoll_wait(watched, &event, 1, -1);
	}
	if (strcmp(name, "sigwait") == 0) {
		sigemptyset(&mask);
		sigaddset(&mask, SIGRTMIN + 3);
		return sigwaitinfo(&mask, NULL);
	}
	if (strcmp(name, "suspend") == 0) {
		sigprocmask(SIG_BLOCK, NULL, &mask);
		sigdelset(&mask, SIGRTMIN);
		return sigsuspend(&mask);
	}
	errno = ENOSYS;
	return -1;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };
	static sigset_t asking;
	sigset_t outside;
	pthread_t t;
	const char *name;

	victim_init(argc, argv);
	if (victim_argc < 2 || pipe(silence))
		victim_die("usage");
	name = victim_argv[1];
	if (strcmp(name, "epoll") == 0)
		watched = epoll_create1(EPOLL_CLOEXEC);
	if (victim_argc > 2)
		action.sa_flags = SA_RESTART;
	sigaction(SIGRTMIN, &action, NULL);
	sigemptyset(&asking);
	sigaddset(&asking, SIGUSR1);
	sigaddset(&asking, SIGUSR2);
	if (strcmp(name, "wait") == 0 && fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigprocmask(SIG_UNBLOCK, &asking, NULL);
		for (;;)
			pause();
	}
	main_thread = pthread_self();
	if (pthread_create(&t, NULL, answer, &asking))
		victim_die("thread");
	if (strcmp(name, "suspend") == 0) {
		sigemptyset(&outside);
		sigaddset(&outside, SIGRTMIN);
		sigprocmask(SIG_BLOCK, &outside, NULL);
	}
	victim_ready();
	for (;;) {
		unsigned long before = handled + sabotage;

		if (call(name) >= 0 || errno != EINTR)
			victim_fail("%s: errno %d", name, errno);
		if (handled == before)
			victim_fail("%s was interrupted and no handler has run", name);
		interrupted++;
	}
}
