/*
 * counter [MICROSECONDS]: counts, sleeping between two counts (10 ms). Asked, it says "count N at T", T the monotonic
 * clock in nanoseconds. Beside the count it keeps the sum of all counts, and its check is that they agree.
 */
#include "victim.h"

int main(int argc, char **argv)
{
	volatile uint64_t count = 0, sum = 0;
	long pause;

	victim_init(argc, argv);
	pause = victim_number(1, 10000);
	victim_ready();
	while (!victim_asked) {
		struct timespec left = { pause / 1000000, pause % 1000000 * 1000 }, now;
		sigset_t open = victim_open_mask(), closed;

		count++;
		sum += count;
		if (sabotage && count == 1)
			count++;
		sigprocmask(SIG_SETMASK, &open, &closed);
		clock_nanosleep(CLOCK_MONOTONIC, 0, &left, NULL);
		sigprocmask(SIG_SETMASK, &closed, NULL);
		if (victim_asked_on) {
			victim_asked_on = 0;
			clock_gettime(CLOCK_MONOTONIC, &now);
			victim_say("count %llu at %lld", (unsigned long long)count, now.tv_sec * 1000000000LL + now.tv_nsec);
		}
	}
	if (sum != count * (count + 1) / 2)
		victim_fail("counted to %llu, and the sum is %llu", (unsigned long long)count, (unsigned long long)sum);
	victim_ok();
}
