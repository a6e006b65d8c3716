/*
 * prlimit: for CRIU, by LD_PRELOAD. CRIU asks for the limits of the processes that it dumps with prlimit(2), which for those of
 * another user takes CAP_SYS_RESOURCE; /proc/PID/limits says the same to everybody. What is refused is answered from there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const names[] = {
	"Max cpu time",	     "Max file size",	  "Max data size",	 "Max stack size",	"Max core file size", "Max resident set",
	"Max processes",     "Max open files",	  "Max locked memory",	 "Max address space",	"Max file locks",     "Max pending signals",
	"Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
};

static rlim64_t value(const char *text)
{
	return strcmp(text, "unlimited") == 0 ? RLIM64_INFINITY : strtoull(text, NULL, 10);
}

static int from_proc(pid_t pid, unsigned resource, struct rlimit64 *old)
{
	char path[64], line[256], soft[32], hard[32];
	int found = -1;
	FILE *file;

	if (resource >= sizeof(names) / sizeof(names[0]))
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	file = fopen(path, "re");
	if (!file)
		return -1;
	while (found && fgets(line, sizeof(line), file)) {
		size_t length = strlen(names[resource]);

		if (strncmp(line, names[resource], length) || line[length] != ' ' || sscanf(line + length, "%31s %31s", soft, hard) != 2)
			continue;
		old->rlim_cur = value(soft);
		old->rlim_max = value(hard);
		found = 0;
	}
	fclose(file);
	return found;
}

static long kernel(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/* CRIU calls it by way of this one. */
long syscall(long number, ...)
{
	long arg[6], result;
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(args, long);
	va_end(args);
	result = kernel(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	if (number == SYS_prlimit64 && result == -EPERM && !arg[2] && arg[3] && from_proc(arg[0], arg[1], (struct rlimit64 *)arg[3]) == 0)
		return 0;
	if (result < 0 && result >= -4095) {
		errno = -result;
		return -1;
	}
	return result;
}

int prlimit64(pid_t pid, enum __rlimit_resource resource, const struct rlimit64 *new, struct rlimit64 *old)
{
	return syscall(SYS_prlimit64, pid, resource, new, old);
}

/* The two structures are one where this is built for. */
int prlimit(pid_t pid, enum __rlimit_resource resource, const struct rlimit *new, struct rlimit *old)
{
	return prlimit64(pid, resource, (const struct rlimit64 *)new, (struct rlimit64 *)old);
}
