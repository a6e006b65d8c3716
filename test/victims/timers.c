/*
 * timers: an interval timer of each kind, a POSIX timer that repeats and one that is far off, a timerfd that is far off
 * and one that has expired. The check is that all are as they were and that the one that ticks goes on ticking.
 */
#include "victim.h"
#include <sys/time.h>
#include <sys/timerfd.h>

static volatile sig_atomic_t ticks;

static void on_tick(int signo)
{
	(void)signo;
	ticks++;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	struct itimerval far = { .it_value = { 100000, 0 }, .it_interval = { 7, 0 } }, left;
	struct itimerspec often = { .it_value = { 0, 20000000 }, .it_interval = { 0, 20000000 } };
	struct itimerspec once = { .it_value = { 200000, 0 } }, now;
	struct itimerspec rarely = { .it_value = { 300000, 0 }, .it_interval = { 9, 0 } };
	struct itimerspec past = { .it_value = { 1, 0 } };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2 };
	static const int kinds[] = { ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF };
	timer_t ticking, waiting;
	uint64_t expirations;
	int far_off, expired, before;

	victim_init(argc, argv);
	if (sigaction(SIGRTMIN + 2, &action, NULL))
		victim_die("sigaction");
	for (size_t i = 0; i < 3; i++)
		if (setitimer(kinds[i], &far, NULL))
			victim_die("setitimer");
	event.sigev_value.sival_int = 5;
	if (timer_create(CLOCK_MONOTONIC, &event, &ticking) || timer_settime(ticking, 0, &often, NULL) ||
	    timer_create(CLOCK_REALTIME, &event, &waiting) || timer_settime(waiting, 0, &once, NULL))
		victim_die("POSIX timers");
	far_off = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	expired = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (far_off < 0 || timerfd_settime(far_off, 0, &rarely, NULL) || expired < 0 ||
	    timerfd_settime(expired, TFD_TIMER_ABSTIME, &past, NULL))
		victim_die("timerfd");

	victim_ready();
	if (sabotage)
		setitimer(ITIMER_PROF, &(struct itimerval){ 0 }, NULL);
	victim_wait();

	for (size_t i = 0; i < 3; i++)
		if (getitimer(kinds[i], &left) || left.it_interval.tv_sec != 7 || left.it_value.tv_sec < 90000 ||
		    left.it_value.tv_sec > 100000)
			victim_fail("interval timer %zu is not armed as it was", i);
	if (timer_gettime(waiting, &now) || now.it_value.tv_sec < 190000 || now.it_interval.tv_sec || now.it_interval.tv_nsec)
		victim_fail("the timer that is far off is not armed as it was");
	if (timer_gettime(ticking, &now) || now.it_interval.tv_nsec != 20000000)
		victim_fail("the timer that ticks has another interval");
	/* Of two ticks from here on, the first may have been under way. */
	before = ticks;
	for (int i = 0; i < 500 && ticks < before + 2; i++)
		usleep(10000);
	if (ticks < before + 2)
		victim_fail("the timer that ticks has stopped");
	if (timerfd_gettime(far_off, &now) || now.it_value.tv_sec < 290000 || now.it_interval.tv_sec != 9)
		victim_fail("the timerfd that is far off is not armed as it was");
	if (read(expired, &expirations, sizeof(expirations)) != sizeof(expirations) || expirations != 1)
		victim_fail("the timerfd that has expired does not say so");
	victim_ok();
}
