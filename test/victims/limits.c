/*
 * limits: all resource limits, each a little lower than it was.
 */
#include "victim.h"
#include <sys/resource.h>

#define LIMITS 16

int main(int argc, char **argv)
{
	struct rlimit before[LIMITS], now;

	victim_init(argc, argv);
	for (int i = 0; i < LIMITS; i++) {
		if (getrlimit(i, &before[i]))
			victim_die("getrlimit %d", i);
		/* Generous, so that nothing fails for it. */
		if (before[i].rlim_max == RLIM_INFINITY)
			before[i].rlim_max = UINT64_C(1) << 40;
		if (before[i].rlim_cur > before[i].rlim_max)
			before[i].rlim_cur = before[i].rlim_max;
		if (before[i].rlim_max > 1000)
			before[i].rlim_max -= 10 + i;
		if (before[i].rlim_cur > 1000)
			before[i].rlim_cur = before[i].rlim_max - 100 - i;
		if (setrlimit(i, &before[i]))
			victim_die("setrlimit %d", i);
	}

	victim_ready();
	if (sabotage)
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 100, before[RLIMIT_NOFILE].rlim_max });
	victim_wait();

	for (int i = 0; i < LIMITS; i++)
		if (getrlimit(i, &now) || now.rlim_cur != before[i].rlim_cur || now.rlim_max != before[i].rlim_max)
			victim_fail("limit %d is %llu of %llu, not %llu of %llu", i, (unsigned long long)now.rlim_cur,
				    (unsigned long long)now.rlim_max, (unsigned long long)before[i].rlim_cur,
				    (unsigned long long)before[i].rlim_max);
	victim_ok();
}
