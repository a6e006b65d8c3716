/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Measures one library, which it loads by path:
 *
 *	bench LIBRARY load          nanoseconds per dlopen() and dlclose(), median
 *	bench LIBRARY memory        KiB of private memory after load, and after 500 calls
 *	bench LIBRARY check-fd      nanoseconds per criu_check() over a descriptor whose answer waits
 *	bench LIBRARY check-bin     nanoseconds per criu_check() with a peer that is started each time
 *	bench LIBRARY setters       nanoseconds per setter: a number, a boolean, a string, an element of a list of 100
 *	bench swrk FD               that peer
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const unsigned char yes[] = { 8, 3, 16, 1 };

static struct {
	int (*init)(void **);
	void (*fini)(void *);
	int (*check)(void *);
	void (*set_fd)(void *, int);
	int (*set_binary)(void *, const char *);
	void (*set_pid)(void *, int);
	void (*set_leave_running)(void *, bool);
	int (*set_log_file)(void *, const char *);
	int (*add_external)(void *, const char *);
} lib;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double cpu(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void *load(const char *path)
{
	void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!h) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return h;
}

static void resolve(void *h)
{
#define SYM(member, name) \
	if (!(*(void **)&lib.member = dlsym(h, name))) \
	exit(1)
	SYM(init, "criu_local_init_opts");
	SYM(fini, "criu_local_free_opts");
	SYM(check, "criu_local_check");
	SYM(set_fd, "criu_local_set_service_fd");
	SYM(set_binary, "criu_local_set_service_binary");
	SYM(set_pid, "criu_local_set_pid");
	SYM(set_leave_running, "criu_local_set_leave_running");
	SYM(set_log_file, "criu_local_set_log_file");
	SYM(add_external, "criu_local_add_external");
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The pages that are there because of this process alone. */
static long private_kb(void)
{
	char line[256];
	long kb, sum = 0;
	FILE *f = fopen("/proc/self/smaps_rollup", "re");

	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Private_Dirty: %ld", &kb) == 1 || sscanf(line, "Private_Clean: %ld", &kb) == 1)
			sum += kb;
	fclose(f);
	return sum;
}

static void check_once(void *o)
{
	int sk[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) || send(sk[1], yes, sizeof(yes), 0) < 0)
		abort();
	lib.set_fd(o, sk[0]);
	if (lib.check(o))
		abort();
	close(sk[1]);
}

int main(int argc, char **argv)
{
	const char *path = argv[1], *mode = argv[2];
	double t[1000], from;
	void *h, *o = NULL;
	int n = 0;

	if (argc == 3 && !strcmp(path, "swrk")) {
		char req[64];

		if (recv(atoi(mode), req, sizeof(req), 0) > 0)
			send(atoi(mode), yes, sizeof(yes), MSG_NOSIGNAL);
		_exit(0);
	}
	if (!strcmp(mode, "load")) {
		for (n = 0; n < 1000; n++) {
			from = now();
			dlclose(load(path));
			t[n] = now() - from;
		}
		qsort(t, 1000, sizeof(t[0]), compare);
		printf("%.0f\n", t[500]);
		return 0;
	}
	if (!strcmp(mode, "memory")) {
		long before, loaded, used;

		private_kb();
		before = private_kb();
		h = load(path);
		loaded = private_kb();
		resolve(h);
		lib.init(&o);
		for (n = 0; n < 500; n++) {
			lib.set_pid(o, n);
			lib.set_log_file(o, "a log file of some length.log");
			check_once(o);
		}
		used = private_kb();
		printf("%ld %ld\n", loaded - before, used - before);
		return 0;
	}
	resolve(load(path));
	lib.init(&o);
	if (!strcmp(mode, "check-fd")) {
		for (int i = 0; i < 200; i++)
			check_once(o);
		from = now();
		for (n = 0; n < 20000; n++)
			check_once(o);
		printf("%.0f\n", (now() - from) / n);
	} else if (!strcmp(mode, "check-bin")) {
		lib.set_binary(o, "/proc/self/exe");
		for (n = 0; n < 300; n++) {
			from = now();
			if (lib.check(o))
				abort();
			t[n] = now() - from;
		}
		qsort(t, 300, sizeof(t[0]), compare);
		printf("%.0f\n", t[150]);
	} else if (!strcmp(mode, "setters")) {
		/* The processor's time, and the best of several: other programs are not what is measured. */
		enum { CHUNKS = 20, CALLS = 100000 };

#define SETTER(end, ...) \
	for (int c = 0; c < CHUNKS; c++) { \
		from = cpu(); \
		for (n = 0; n < CALLS; n++) { \
			__VA_ARGS__; \
		} \
		t[c] = (cpu() - from) / CALLS; \
	} \
	qsort(t, CHUNKS, sizeof(t[0]), compare); \
	printf("%.2f" end, t[0])

		SETTER(" ", lib.set_pid(o, n));
		SETTER(" ", lib.set_leave_running(o, n & 1));
		SETTER(" ", lib.set_log_file(o, "dump.log"));
		SETTER("\n", if (n % 100 == 0) lib.init(&o); lib.add_external(o, "mnt[/data]:data"));
	}
	return 0;
}
