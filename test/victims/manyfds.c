/*
 * manyfds: N descriptors: one file opened again and again, each at an offset of its own, every fourth a duplicate of the one
 * before it. With gaps in the numbers.
 */
#include "victim.h"
#include <sys/resource.h>

enum { FIRST = 20, GAP = 97 };

static int number(int i)
{
	return FIRST + i + i / GAP;
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	int count, base;

	victim_init(argc, argv);
	count = victim_number(1, 1000);
	if (getrlimit(RLIMIT_NOFILE, &limit))
		victim_die("getrlimit");
	limit.rlim_cur = number(count) + 1;
	if (limit.rlim_cur > limit.rlim_max || setrlimit(RLIMIT_NOFILE, &limit))
		victim_die("%d descriptors, where %llu are allowed", count, (unsigned long long)limit.rlim_max);
	base = open("manyfds.data", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (base < 0)
		victim_die("a file");
	for (int i = 0; i < count; i++) {
		int fd = i % 4 == 3 ? dup(number(i - 1)) : open("manyfds.data", O_RDONLY);

		if (fd < 0 || dup2(fd, number(i)) < 0 || close(fd) || (i % 4 != 3 && lseek(number(i), i, SEEK_SET) != i))
			victim_die("descriptor %d", number(i));
	}

	victim_ready();
	if (sabotage)
		lseek(number(count / 2), 0, SEEK_SET);
	victim_wait();

	for (int i = 0, wrong = 0; i < count && wrong < 10; i++) {
		off_t at = lseek(number(i), 0, SEEK_CUR), want = i % 4 == 3 ? i - 1 : i;

		if (at != want) {
			victim_fail("descriptor %d is at %lld, not at %lld", number(i), (long long)at, (long long)want);
			wrong++;
		}
	}
	for (int i = 3; i < count; i += 4) {
		if (lseek(number(i), 1000000, SEEK_SET) != 1000000 || lseek(number(i - 1), 0, SEEK_CUR) != 1000000) {
			victim_fail("descriptor %d is no duplicate any more", number(i));
			break;
		}
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur != (rlim_t)number(count) + 1)
		victim_fail("%llu descriptors are allowed", (unsigned long long)limit.rlim_cur);
	if (fcntl(number(count - 1) + 1, F_GETFD) != -1)
		victim_fail("there is a descriptor that was not there");
	victim_ok();
}
