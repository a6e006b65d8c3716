/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Hosts that are hard on a library: each mode is one, and exits with 0 when all went well.
 *
 *	hosts MODE [ARG]
 *	hosts swrk FD		the peer, which does as the environment variable PEER says
 *
 * The library is used through dlopen() where that is the point, and linked where it is not.
 */
#include <criu/criu.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SELF "/proc/self/exe"

#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			dprintf(2, "%s:%d: %s (errno %d)\n", __func__, __LINE__, #cond, errno); \
			_exit(1); \
		} \
	} while (0)

/* The peer: answers each request with success, or as it is told. */
static int peer(int fd)
{
	static const unsigned char notify[] = "\x08\x06\x10\x01\x2a\x0a\x0a\x08pre-dump";
	const char *how = getenv("PEER") ? getenv("PEER") : "ok";
	unsigned char req[65536], resp[64] = { 0x08, 0, 0x10, 0x01 };
	size_t n = 4;

	if (recv(fd, req, sizeof(req), 0) <= 0)
		return 1;
	if (!strncmp(how, "notify", 6)) {
		send(fd, notify, sizeof(notify) - 1, 0);
		if (recv(fd, req + 2, 4, 0) <= 0)
			return 1;
	}
	resp[1] = req[1];
	switch (req[1]) {
	case 2:
		memcpy(resp + n, "\x22\x03\x08\xd2\x09", 5);
		n += 5;
		break;
	case 10:
		memcpy(resp + n, "\x52\x06\x08\x04\x10\x02\x20\x01", 8);
		n += 8;
		break;
	}
	if (!strcmp(how, "fail")) {
		resp[3] = 0;
		memcpy(resp + 4, "\x38\x11\x4a\x0c" "no such file", 16);
		n = 20;
	}
	if (!strncmp(how, "errno ", 6)) {
		resp[3] = 0;
		resp[4] = 0x38;
		resp[5] = (unsigned char)atoi(how + 6);
		n = 6;
	}
	send(fd, resp, n, MSG_NOSIGNAL);
	return 0;
}

static criu_opts *fresh(void)
{
	criu_opts *o = NULL;

	CHECK(criu_local_init_opts(&o) == 0);
	CHECK(criu_local_set_service_binary(o, SELF) == 0);
	return o;
}

static void use_library(void)
{
	criu_opts *o = fresh();

	CHECK(criu_local_check(o) == 0);
	CHECK(criu_local_get_version(o) == 40201);
	CHECK(criu_local_dump(o) == 0); /* itself */
	criu_local_set_pid(o, 1);
	CHECK(criu_local_dump(o) == 0);
	CHECK(criu_local_restore_child(o) == 1234);
	criu_local_free_opts(o);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static void *spin(void *stop)
{
	while (!*(volatile int *)stop) {
		free(malloc(100));
		sched_yield();
	}
	return NULL;
}

/* fork() right after load and after use, with one thread and with many that are in malloc() all the time. */
static int mode_fork(int rounds, int used, int threads)
{
	int stop = 0, status;
	pthread_t t[4];

	if (used)
		use_library();
	for (int i = 0; i < threads; i++)
		CHECK(pthread_create(&t[i], NULL, spin, &stop) == 0);
	for (int i = 0; i < rounds; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			alarm(30);
			use_library();
			_exit(0);
		}
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	stop = 1;
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	return 0;
}

static long rss_kb(void)
{
	char line[256];
	long kb = -1;
	FILE *f = fopen("/proc/self/smaps_rollup", "re"); /* exact, other than VmRSS */

	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Rss: %ld", &kb) == 1)
			break;
	fclose(f);
	return kb;
}

static int maps_with(const char *what, int *all)
{
	char line[512];
	int n = 0;
	FILE *f = fopen("/proc/self/maps", "re");

	*all = 0;
	while (fgets(line, sizeof(line), f)) {
		++*all;
		n += strstr(line, what) != NULL;
	}
	fclose(f);
	return n;
}

/* Loads, uses and unloads the library again and again. This mode must be built without linking it. */
static int mode_dlopen(int rounds, const char *path)
{
	long before = 0, after;
	int maps_before = 0, maps;

	for (int i = 0; i < rounds; i++) {
		void *h = dlopen(path, RTLD_NOW);
		int (*init)(criu_opts **), (*check)(criu_opts *), (*bin)(criu_opts *, const char *);
		int (*add)(criu_opts *, const char *);
		void (*fini)(criu_opts *);
		criu_opts *o = NULL;

		if (!h)
			dprintf(2, "%s\n", dlerror());
		CHECK(h);
		*(void **)&init = dlsym(h, "criu_local_init_opts");
		*(void **)&fini = dlsym(h, "criu_local_free_opts");
		*(void **)&check = dlsym(h, "criu_local_check");
		*(void **)&bin = dlsym(h, "criu_local_set_service_binary");
		*(void **)&add = dlsym(h, "criu_local_add_external");
		CHECK(init && fini && check && bin && add);
		CHECK(init(&o) == 0 && bin(o, SELF) == 0 && add(o, "x") == 0);
		if (i % 10 == 0)
			CHECK(check(o) == 0);
		fini(o);
		CHECK(dlclose(h) == 0);
		CHECK(maps_with("libcriu", &maps) == 0);
		if (i == rounds / 10) {
			before = rss_kb(); /* the first time brings in what it needs itself */
			before = rss_kb();
			maps_before = maps;
		}
	}
	CHECK(maps == maps_before);
	after = rss_kb();
	printf("%d rounds, RSS %ld to %ld KiB, %d mappings before and after\n", rounds, before, after, maps);
	CHECK(after - before < 64); /* less than a tenth of a page per round */
	return 0;
}

/* What only a single-threaded process may do stays possible. */
static int mode_namespaces(void)
{
	criu_opts *o;
	pid_t init;
	int fd;

	use_library();
	CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWNET) == 0);
	use_library();
	fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && setns(fd, CLONE_NEWNS) == 0);
	close(fd);
	CHECK(unshare(CLONE_NEWPID) == 0);
	init = fork(); /* the first child is the init of the new namespace, without which there are no others */
	if (init == 0)
		pause();
	CHECK(init > 0);
	o = fresh();
	CHECK(criu_local_check(o) == 0);
	CHECK(criu_local_dump(o) == 0);
	criu_local_free_opts(o);
	kill(init, SIGKILL);
	waitpid(init, NULL, 0);
	return 0;
}

static int mode_address_space(void)
{
	struct rlimit limit = { 300UL << 20, 300UL << 20 };
	char *ballast;

	CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
	/* More than half of it is in use, and touched. */
	ballast = mmap(NULL, 200UL << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	CHECK(ballast != MAP_FAILED);
	use_library();
	return 0;
}

static void *small_stack_thread(void *arg)
{
	criu_opts *o = fresh();
	int dir = open((char *)arg, O_DIRECTORY | O_CLOEXEC);

	use_library();
	/* The path with the most on the stack: failure, a text, the log. */
	setenv("PEER", "fail", 1);
	criu_local_set_images_dir_fd(o, dir);
	criu_local_set_log_file(o, "dump.log");
	criu_local_set_pid(o, 1);
	CHECK(criu_local_dump(o) == -EBADE && errno == EEXIST);
	CHECK(!strcmp(criu_local_get_errmsg(o), "no such file"));
	CHECK(criu_local_set_service_address(o, "/nonexistent") == 0);
	CHECK(criu_local_dump(o) == -ECONNREFUSED && errno == ENOENT);
	criu_local_free_opts(o);
	close(dir);
	return NULL;
}

static int mode_small_stack(char *dir)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	CHECK(pthread_attr_setstacksize(&attr, 16384) == 0);
	CHECK(pthread_create(&t, &attr, small_stack_thread, dir) == 0);
	pthread_join(t, NULL);
	return 0;
}

/* Callbacks. */

static int cb_fork(char *action, criu_notify_arg_t na)
{
	pid_t pid = fork();
	int status;

	(void)na;
	CHECK(pid >= 0 && !strcmp(action, "pre-dump"));
	if (pid == 0)
		_exit(3);
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 3);
	return 0;
}

static int cb_exec(char *action, criu_notify_arg_t na)
{
	(void)action;
	(void)na;
	unsetenv("PEER");
	CHECK(system("exit 5") == 5 << 8);
	use_library_again:
	{
		criu_opts *o = fresh();
		static int depth;

		CHECK(criu_local_check(o) == 0);
		criu_local_free_opts(o);
		if (!depth++)
			goto use_library_again;
	}
	return 0;
}

static jmp_buf back;

static int cb_longjmp(char *action, criu_notify_arg_t na)
{
	(void)action;
	(void)na;
	longjmp(back, 1);
}

static int cb_child_acts(char *action, criu_notify_arg_t na)
{
	int status;
	pid_t pid = fork();

	(void)action;
	(void)na;
	if (pid == 0) {
		unsetenv("PEER");
		use_library();
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	return 0;
}

static int cb_data(char *action, criu_notify_arg_t na, void *data)
{
	CHECK(!strcmp(action, "pre-dump") && criu_notify_pid(na) == 0 && na->script == action);
	++*(int *)data;
	return 0;
}

static int mode_callbacks(void)
{
	criu_opts *o = fresh();
	int calls = 0;

	criu_local_set_pid(o, 1);
	setenv("PEER", "notify", 1);
	criu_local_set_notify_cb(o, cb_fork);
	CHECK(criu_local_dump(o) == 0);
	criu_local_set_notify_cb(o, cb_child_acts);
	CHECK(criu_local_dump(o) == 0);
	setenv("PEER", "notify", 1);
	criu_local_set_notify_cb_data(o, cb_data, &calls);
	CHECK(criu_local_dump(o) == 0 && calls == 1);
	criu_local_set_notify_cb(o, cb_longjmp);
	for (int i = 0; i < 10; i++) {
		setenv("PEER", "notify", 1);
		if (!setjmp(back)) {
			criu_local_dump(o);
			CHECK(!"dump came back");
		}
	}
	/* The object is as good as before. */
	criu_local_set_notify_cb(o, cb_exec);
	CHECK(criu_local_dump(o) == 0);
	criu_local_free_opts(o);
	return 0;
}

/* Many threads, each with its own object, its own peer, its own errno. */
static void *thread_main(void *arg)
{
	int own = (int)(long)arg;

	for (int i = 0; i < 200; i++) {
		unsigned char answer[6] = { 0x08, 0x01, 0x10, 0x00, 0x38, (unsigned char)own }, req[512];
		criu_opts *o = NULL;
		char name[32], text[32];
		ssize_t n;
		int sk[2];

		CHECK(criu_local_init_opts(&o) == 0);
		CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) == 0);
		CHECK(send(sk[1], answer, sizeof(answer), 0) == sizeof(answer));
		snprintf(name, sizeof(name), "thread-%d-%d", own, i);
		CHECK(criu_local_set_log_file(o, name) == 0);
		criu_local_set_pid(o, own);
		criu_local_set_service_fd(o, sk[0]);
		CHECK(criu_local_dump(o) == -EBADE && errno == own);
		n = recv(sk[1], req, sizeof(req), MSG_DONTWAIT);
		CHECK(n > 0 && memmem(req, (size_t)n, name, strlen(name)));
		close(sk[1]);
		snprintf(text, sizeof(text), "/nonexistent/%d", own);
		CHECK(criu_local_set_service_address(o, text) == 0);
		CHECK(criu_local_dump(o) == -ECONNREFUSED && errno == ENOENT);
		CHECK(strstr(criu_local_get_errmsg(o), text));
		criu_local_free_opts(o);
	}
	for (int i = 0; i < 5; i++) { /* with children of their own */
		criu_opts *o = fresh();

		CHECK(criu_local_get_version(o) == 40201);
		criu_local_free_opts(o);
	}
	return NULL;
}

static int mode_threads(void)
{
	pthread_t t[16];

	for (long i = 0; i < 16; i++)
		CHECK(pthread_create(&t[i], NULL, thread_main, (void *)(i + 20)) == 0);
	for (int i = 0; i < 16; i++)
		pthread_join(t[i], NULL);
	return 0;
}

/* A subreaper that dumps itself is left without a child, and is a subreaper afterwards. */
static int mode_subreaper(void)
{
	criu_opts *o = fresh();
	int now = 0;

	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	setenv("PEER", "notify", 1);
	criu_local_set_notify_cb(o, cb_fork); /* whose waitpid() is for its own child only */
	CHECK(criu_local_dump(o) == 0);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	CHECK(prctl(PR_GET_CHILD_SUBREAPER, &now) == 0 && now == 1);
	criu_local_free_opts(o);
	return 0;
}

static volatile int children_ended;

static void on_sigchld(int sig)
{
	(void)sig;
	children_ended++;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

/* Limits that are met, and signals that come all the time. */
static int mode_limits(void)
{
	struct rlimit files, none = { 0, 0 };
	struct sigaction sa = { .sa_handler = on_sigchld };
	criu_opts *o = fresh();

	/* A program that reaps all its children itself. */
	sigaction(SIGCHLD, &sa, NULL);
	CHECK(criu_local_check(o) == 0);
	CHECK(criu_local_dump(o) == 0);
	signal(SIGCHLD, SIG_IGN);
	CHECK(criu_local_check(o) == 0);
	CHECK(criu_local_dump(o) == 0);
	signal(SIGCHLD, SIG_DFL);

	CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
	none.rlim_cur = 3;
	none.rlim_max = files.rlim_max;
	for (int fd = 3; fd < 64; fd++)
		close(fd);
	CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
	CHECK(criu_local_check(o) == -ECONNREFUSED && errno == EMFILE);
	none.rlim_cur = 4;
	CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
	CHECK(criu_local_dump(o) == -ECONNREFUSED && errno == EMFILE);
	CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
	CHECK(open("/dev/null", O_RDONLY) == 3); /* none was left open */
	CHECK(criu_local_check(o) == 0);
	criu_local_free_opts(o);

	/* No process may be made: root is above that limit, so as somebody else. */
	if (geteuid() == 0)
		CHECK(setresuid(65531, 65531, 65531) == 0);
	none.rlim_cur = none.rlim_max = 0;
	CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
	o = fresh();
	CHECK(criu_local_check(o) == -ECONNREFUSED && errno == EAGAIN);
	CHECK(criu_local_dump(o) == -ECONNREFUSED && errno == EAGAIN);
	CHECK(criu_local_restore_child(o) == -ECONNREFUSED && errno == EAGAIN);
	CHECK(strstr(criu_local_get_errmsg(o), "cannot start"));
	criu_local_free_opts(o);
	return 0;
}

#ifndef SANITIZED /* a sanitizer has a malloc of its own */

/* Memory that runs out at each allocation in turn. */

static long fail_at = -1; /* counts down; the allocation at 0 fails */
static long allocations;

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

static int fails(void)
{
	allocations++;
	return fail_at >= 0 && fail_at-- == 0;
}

void *malloc(size_t n)
{
	return fails() ? errno = ENOMEM, NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t m)
{
	return fails() ? errno = ENOMEM, NULL : __libc_calloc(n, m);
}

void *realloc(void *p, size_t n)
{
	return fails() ? errno = ENOMEM, NULL : __libc_realloc(p, n);
}

/* 0, or the first error; every step may fail, none may do anything but say so. */
static int everything(void)
{
	char *argv[] = { "a", "b", NULL };
	criu_opts *o = NULL;
	int r[20] = { 0 }, n = 0;
	unsigned char req[4096];
	int sk[2];

	if (criu_local_init_opts(&o))
		return -ENOMEM;
	r[n++] = criu_local_set_log_file(o, "log");
	r[n++] = criu_local_set_log_file(o, "a longer one, which does not fit the room that the first one was given");
	r[n++] = criu_local_add_external(o, "x");
	r[n++] = criu_local_add_external(o, "a longer one, which does not fit the room that the first one was given");
	r[n++] = criu_local_set_exec_cmd(o, 2, argv);
	r[n++] = criu_local_add_ext_mount(o, "k", "v");
	r[n++] = criu_local_add_unix_sk(o, 1);
	r[n++] = criu_local_set_page_server_address_port(o, "host", 1);
	r[n++] = criu_local_join_ns_add(o, "net", "1", NULL);
	r[n++] = criu_local_add_inherit_fd(o, 1, "x");
	r[n++] = criu_local_set_service_address(o, "/nonexistent");
	criu_local_check(o);
	for (int i = 0; i < n; i++)
		CHECK(r[i] == 0 || r[i] == -ENOMEM);

	/* What is sent is whole: with the fields whose setter succeeded. */
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) == 0);
	CHECK(send(sk[1], "\x08\x01\x10\x00\x38\x11\x4a\x0cno such file", 20, 0) == 20);
	criu_local_set_pid(o, 1);
	criu_local_set_service_fd(o, sk[0]);
	r[n] = criu_local_dump(o);
	CHECK((r[n] == -EBADE && errno == EEXIST) || (r[n] == -ECOMM && errno == ENOMEM));
	if (recv(sk[1], req, sizeof(req), MSG_DONTWAIT) < 0) /* says first that its answer was not read */
		CHECK(errno == ECONNRESET && recv(sk[1], req, sizeof(req), MSG_DONTWAIT) > 0);
	if (!r[0] && !r[1])
		CHECK(memmem(req, sizeof(req), "a longer one", 12));
	CHECK(!*criu_local_get_errmsg(o) || strstr("no such file", criu_local_get_errmsg(o)) ||
	      strstr(criu_local_get_errmsg(o), "cannot receive"));
	close(sk[1]);
	criu_local_free_opts(o);
	for (int i = 0; i < n; i++)
		if (r[i])
			return r[i];
	return r[n] == -EBADE ? 0 : r[n];
}

static int mode_nomem(void)
{
	long total, failed = 0;

	everything();
	allocations = 0;
	CHECK(everything() == 0);
	total = allocations;
	for (long i = 0; i < total; i++) {
		fail_at = i;
		failed += everything() != 0;
		CHECK(fail_at == -1);
	}
	/* Texts are the only allocations that may fail unseen. */
	printf("%ld allocations, each made to fail; %ld of the failures seen by the caller\n", total, failed);
	CHECK(failed >= total - 4);
	CHECK(open("/dev/null", O_RDONLY) == 3); /* no descriptor left */
	return 0;
}

#endif

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	if (argc == 3 && !strcmp(mode, "swrk"))
		return peer(atoi(argv[2]));
	if (!strcmp(mode, "dlopen"))
		return mode_dlopen(1000, argv[2]);
	if (!strcmp(mode, "fork-unused"))
		return mode_fork(100, 0, 0);
	if (!strcmp(mode, "fork-used"))
		return mode_fork(100, 1, 0);
	if (!strcmp(mode, "fork-unused-threads"))
		return mode_fork(100, 0, 4);
	if (!strcmp(mode, "fork-used-threads"))
		return mode_fork(100, 1, 4);
	if (!strcmp(mode, "namespaces"))
		return mode_namespaces();
	if (!strcmp(mode, "address-space"))
		return mode_address_space();
	if (!strcmp(mode, "small-stack"))
		return mode_small_stack(argv[2]);
	if (!strcmp(mode, "callbacks"))
		return mode_callbacks();
	if (!strcmp(mode, "threads"))
		return mode_threads();
	if (!strcmp(mode, "subreaper"))
		return mode_subreaper();
	if (!strcmp(mode, "limits"))
		return mode_limits();
#ifndef SANITIZED
	if (!strcmp(mode, "nomem"))
		return mode_nomem();
#endif
	return 2;
}
