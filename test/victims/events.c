/*
 * events: files that say that something has happened. eventfds with and without a counter; a signalfd and a signal
 * that waits in it; timerfds that are off, far off, expired, expired and going on; epoll files that watch them, each other,
 * pipes that are ready or not, and files whose number was closed since or is another file's by now.
 *
 * With the argument "all" also what CRIU 4.2 changes: an eventfd that is a semaphore, one whose
 * counter has more than 32 bits, a timerfd that has expired and goes on, which CRIU turns
 * off, and a file that is watched by two numbers, one of which is closed, which CRIU gives the same number twice.
 */
#include "victim.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

enum { CLOSED = 40, REUSED = 41, SIGNAL = 36 };

static const uint64_t large = UINT64_C(0xfffffffffffffffe);
static int counter, zero, huge = -1, semaphore = -1, waiting;
static int inner, outer, empty[2], full[2], moved, first, second;
static struct timer {
	const char *what;
	int clock, flags;
	long first_sec, first_nsec, every_sec;
	uint64_t ticks; /* when it is asked for the verdict */
	int fd;
} timers[] = {
	{ "off", CLOCK_MONOTONIC, 0, 0, 0, 0, 0, 0 },
	{ "far off", CLOCK_MONOTONIC, 0, 5000, 0, 70, 0, 0 },
	{ "far off, boot time", CLOCK_BOOTTIME, 0, 5000, 0, 0, 0, 0 },
	{ "at a time of day", CLOCK_REALTIME, TFD_TIMER_ABSTIME, 5000, 0, 0, 0, 0 },
	{ "expired", CLOCK_MONOTONIC, 0, 0, 1, 0, 1, 0 },
	/* the last is only there with "all" */
	{ "expired and going on", CLOCK_MONOTONIC, 0, 0, 1, 5000, 1, 0 },
};
static int used = sizeof(timers) / sizeof(*timers) - 1;

static void watch(int epoll, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		victim_die("epoll_ctl of %d", fd);
}

static int new_eventfd(uint64_t value, int flags)
{
	int fd = eventfd(0, flags);

	if (fd < 0 || (value && write(fd, &value, 8) != 8))
		victim_die("an eventfd");
	return fd;
}

static void start(struct timer *t)
{
	struct itimerspec spec = { .it_value = { t->first_sec, t->first_nsec }, .it_interval = { t->every_sec, 0 } };

	t->fd = timerfd_create(t->clock, TFD_NONBLOCK | TFD_CLOEXEC);
	if (t->fd >= 0 && t->flags) {
		struct timespec now;

		clock_gettime(t->clock, &now);
		spec.it_value.tv_sec += now.tv_sec;
	}
	if (t->fd < 0 || timerfd_settime(t->fd, t->flags, &spec, NULL))
		victim_die("a timer %s", t->what);
}

static void set_up_epoll(void)
{
	inner = epoll_create1(EPOLL_CLOEXEC);
	outer = epoll_create1(0);
	if (inner < 0 || outer < 0 || pipe2(empty, O_CLOEXEC | O_NONBLOCK) || pipe2(full, O_NONBLOCK) || write(full[1], "x", 1) != 1)
		victim_die("epoll_create1");
	watch(inner, full[0], EPOLLIN | EPOLLET, 0x1122334455667788);
	watch(inner, empty[0], EPOLLIN, 2);
	watch(inner, counter, EPOLLIN | EPOLLONESHOT, 3);
	watch(inner, zero, EPOLLIN | EPOLLPRI, 4);
	watch(inner, waiting, EPOLLIN, 5);
	watch(inner, timers[4].fd, EPOLLIN, 6);
	watch(outer, inner, EPOLLIN, 7);
	watch(outer, empty[1], EPOLLOUT | EPOLLEXCLUSIVE, 8);
	/* The number that it is watched by is closed; the file goes on, and so does the watch. */
	moved = new_eventfd(1, EFD_NONBLOCK);
	if (dup2(moved, CLOSED) != CLOSED)
		victim_die("dup2");
	watch(outer, CLOSED, EPOLLIN, 9);
	if (semaphore >= 0) { /* and by its own number as well; there is a third by which it can be watched again */
		watch(outer, moved, EPOLLIN, 12);
		if (dup(moved) < 0)
			victim_die("dup");
	}
	close(CLOSED);
	/* Likewise, and the number is another's by now, who is watched too. */
	first = new_eventfd(1, 0);
	second = new_eventfd(1, 0);
	if (dup2(first, REUSED) != REUSED)
		victim_die("dup2");
	watch(outer, REUSED, EPOLLIN, 10);
	if (dup2(second, REUSED) != REUSED)
		victim_die("dup2");
	watch(outer, REUSED, EPOLLIN, 11);
}

/* The bits of what an epoll file says, by data; 1 stands for a wrong one. */
static uint32_t said(int epoll)
{
	struct epoll_event events[16];
	int n = epoll_wait(epoll, events, 16, 0);
	uint32_t bits = 0;

	for (int i = 0; i < n; i++) {
		if (events[i].data.u64 == 0x1122334455667788)
			bits |= 2;
		else if (events[i].data.u64 > 1 && events[i].data.u64 < 32)
			bits |= 1u << events[i].data.u64;
		else
			bits |= 1;
	}
	return bits;
}

static void check_counter(int fd, uint64_t want, const char *what)
{
	uint64_t value = 0;
	ssize_t n = read(fd, &value, 8);

	if (want ? n != 8 || value != want : n != -1 || errno != EAGAIN)
		victim_fail("%s: %llu, want %llu", what, (unsigned long long)value, (unsigned long long)want);
}

static void check_timer(struct timer *t)
{
	struct itimerspec spec;

	check_counter(t->fd, t->ticks, t->what);
	if (timerfd_gettime(t->fd, &spec))
		victim_fail("%s: %s", t->what, strerror(errno));
	if (spec.it_interval.tv_sec != t->every_sec || spec.it_interval.tv_nsec)
		victim_fail("%s: its interval is %ld s", t->what, spec.it_interval.tv_sec);
	long left = t->first_sec ? t->first_sec : t->every_sec;
	if (left ? spec.it_value.tv_sec > left || spec.it_value.tv_sec < left - 600 : spec.it_value.tv_sec || spec.it_value.tv_nsec)
		victim_fail("%s: %ld s are left of %ld", t->what, spec.it_value.tv_sec, left);
}

static void check_signal(void)
{
	struct signalfd_siginfo info = { 0 };

	if (read(waiting, &info, sizeof(info)) != sizeof(info) || info.ssi_signo != SIGNAL || info.ssi_int != 4711)
		victim_fail("the signal that waited: %u, %d", info.ssi_signo, info.ssi_int);
	if (read(waiting, &info, sizeof(info)) != -1 || errno != EAGAIN)
		victim_fail("there are more signals than there were");
	if (!(fcntl(waiting, F_GETFL) & O_NONBLOCK) || fcntl(waiting, F_GETFD) != FD_CLOEXEC)
		victim_fail("the signalfd has other flags");
}

static void check_epoll(void)
{
	uint32_t bits = said(outer), want = 1u << 7 | 1u << 8 | 1u << 9 | 1u << 10 | 1u << 11;

	if (bits != (semaphore >= 0 ? want | 1u << 12 : want))
		victim_fail("the outer epoll file says %#x", bits);
	bits = said(inner);
	if (bits != (2u | 1u << 3 | 1u << 5 | 1u << 6))
		victim_fail("the inner epoll file says %#x", bits);
	bits = said(inner);
	if (bits != (1u << 5 | 1u << 6))
		victim_fail("the inner epoll file says %#x once more: edges and single shots are lost", bits);
	if (fcntl(inner, F_GETFD) != FD_CLOEXEC || fcntl(outer, F_GETFD))
		victim_fail("the epoll files have other flags");
}

int main(int argc, char **argv)
{
	union sigval value = { .sival_int = 4711 };
	sigset_t mask;

	victim_init(argc, argv);
	counter = new_eventfd(5, EFD_CLOEXEC);
	zero = new_eventfd(0, EFD_NONBLOCK);
	if (victim_argc > 1 && !strcmp(victim_argv[1], "all")) {
		huge = new_eventfd(large, EFD_NONBLOCK);
		semaphore = new_eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
		used++;
	}
	sigemptyset(&mask);
	sigaddset(&mask, SIGNAL);
	waiting = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
	if (waiting < 0 || sigprocmask(SIG_BLOCK, &mask, NULL) || sigqueue(getpid(), SIGNAL, value))
		victim_die("a signalfd");
	for (int i = 0; i < used; i++)
		start(&timers[i]);
	set_up_epoll();
	for (int i = 0; i < used; i++) {
		struct pollfd expired = { .fd = timers[i].fd, .events = POLLIN };

		if (timers[i].ticks && poll(&expired, 1, -1) != 1)
			victim_die("a timer that is to expire");
	}

	victim_ready();
	if (sabotage) {
		uint64_t more = 1;

		if (write(counter, &more, 8) != 8)
			victim_die("sabotage");
	}
	victim_wait();

	check_epoll();
	check_counter(counter, 5, "eventfd");
	check_counter(zero, 0, "empty eventfd");
	if (semaphore >= 0) {
		check_counter(huge, large, "full eventfd");
		check_counter(semaphore, 1, "semaphore");
	}
	check_counter(first, 1, "the file that was watched by a number that is another's");
	check_counter(second, 1, "the file that has that number");
	for (int i = 0; i < used; i++)
		check_timer(&timers[i]);
	check_signal();
	victim_ok();
}
