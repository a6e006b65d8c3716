/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The compatibility driver: compiled once, against the headers of the reference, and run with either library by
 * changing LD_LIBRARY_PATH. Each case calls the library against a scripted peer and prints what the call returned,
 * what errno was, what is left behind, and every byte that the peer was sent. Two runs that print the same behave the
 * same.
 *
 *	driver TMPDIR        runs all cases; with "actions" behind it, all but those of the plain setters
 *	driver swrk FD       plays the peer that a service binary is; PEER_SCRIPT says how, PEER_LOG where to write
 *
 * Each case runs in a process of its own, so that one that crashes is reported as such ("signal 11").
 *
 * A script is a list of steps: r receive and record a packet, s:HEX send one, f:HEX send one with a descriptor, F:HEX
 * with two, x exit, k die of SIGKILL, p wait until there is something to read, t let some time go by, w read and
 * record until the other end is closed.
 */
#include <criu.h>

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exported by every version, declared by none. */
void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);
void criu_free_service(criu_opts *opts);
extern const char *criu_lib_version;

static char self_exe[PATH_MAX], log_path[PATH_MAX], sock_path[PATH_MAX];

/* The peer. */

static FILE *peer_log;

static size_t unhex(const char *s, unsigned char *out)
{
	size_t n = 0;
	unsigned v;

	for (; sscanf(s, "%2x", &v) == 1 && s[0] != ' '; s += 2)
		out[n++] = (unsigned char)v;
	return n;
}

static int peer_record(int fd)
{
	static unsigned char buf[1 << 20];
	ssize_t n = recv(fd, buf, sizeof(buf), 0);

	if (n <= 0)
		return 0;
	fprintf(peer_log, "  req ");
	for (ssize_t i = 0; i < n; i++)
		fprintf(peer_log, "%02x", buf[i]);
	fprintf(peer_log, "\n");
	return 1;
}

static void peer_send(int fd, const char *hex, int nfds)
{
	static unsigned char buf[1 << 17];
	union {
		char space[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { buf, unhex(hex, buf) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[2] = { -1, -1 };

	if (nfds) {
		struct cmsghdr *c;

		fds[0] = open("/dev/null", O_RDWR);
		fds[1] = open("/dev/zero", O_RDWR);
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	sendmsg(fd, &msg, MSG_NOSIGNAL);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void peer_play(int fd, const char *script)
{
	struct pollfd pfd = { fd, POLLIN, 0 };

	for (const char *s = script; s && *s; s = strchr(s, ' ') ? strchr(s, ' ') + 1 : NULL) {
		switch (*s) {
		case 'r':
			peer_record(fd);
			break;
		case 's':
			peer_send(fd, s + 2, 0);
			break;
		case 'f':
			peer_send(fd, s + 2, 1);
			break;
		case 'F':
			peer_send(fd, s + 2, 2);
			break;
		case 'p':
			poll(&pfd, 1, -1);
			break;
		case 't':
			poll(NULL, 0, 150);
			break;
		case 'w':
			while (peer_record(fd))
				;
			break;
		case 'k':
			fclose(peer_log);
			kill(getpid(), SIGKILL);
			break;
		case 'x':
			fclose(peer_log);
			_exit(0);
		}
	}
}

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = -3; /* ., .. and the directory itself */

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int peer_main(char **argv)
{
	char cwd[PATH_MAX] = "?";
	sigset_t mask;

	if (getenv("PEER_PARENT") && getppid() == atoi(getenv("PEER_PARENT")))
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* of a caller that hangs */
	peer_log = fopen(getenv("PEER_LOG"), "ae");
	setvbuf(peer_log, NULL, _IOLBF, 0);
	if (getenv("PEER_TELL")) {
		int fds = count_fds() - 1; /* the log */

		sigprocmask(SIG_BLOCK, NULL, &mask);
		if (!getcwd(cwd, sizeof(cwd)))
			cwd[0] = '?';
		fprintf(peer_log, "  peer argv0=%s verb=%s parent=%s leader=%d\n", strrchr(argv[0], '/') ? "path" : argv[0], argv[1],
			getppid() == atoi(getenv("PEER_PARENT")) ? "caller" : "other", getsid(0) == getpid());
		fprintf(peer_log, "  peer SIGCHLD blocked=%d SIGUSR1 blocked=%d SIGUSR2 ignored=%d\n",
			sigismember(&mask, SIGCHLD), sigismember(&mask, SIGUSR1), signal(SIGUSR2, SIG_DFL) == SIG_IGN);
		fprintf(peer_log, "  peer cwd %s\n", strcmp(cwd, getenv("PEER_CWD")) ? "other" : "of the caller");
		fprintf(peer_log, "  peer descriptors %+d\n", fds - atoi(getenv("PEER_FDS")));
	}
	peer_play(atoi(argv[2]), getenv("PEER_SCRIPT"));
	fclose(peer_log);
	return 0;
}

/* Cases. */

enum mode { FD, SK, BIN };
static const char *mode_names[] = { "fd", "sk", "bin" };

static void print_log(void)
{
	FILE *f = fopen(log_path, "re");
	char line[4096];

	while (f && fgets(line, sizeof(line), f))
		fputs(line, stdout);
	if (f)
		fclose(f);
	unlink(log_path);
}

/* Runs a case in a child. */
#define CASE(name, ...) \
	do { \
		printf("case %s\n", name); \
		fflush(stdout); \
		unlink(log_path); \
		pid_t case_pid = fork(); \
		if (case_pid == 0) { \
			alarm(10); /* a hang is reported as signal 14 */ \
			__VA_ARGS__; \
			fflush(stdout); \
			_exit(0); \
		} \
		int case_status; \
		waitpid(case_pid, &case_status, 0); \
		while (wait(NULL) > 0) /* what a case has left behind came to us */ \
			; \
		print_log(); \
		if (WIFSIGNALED(case_status)) \
			printf("  signal %d\n", WTERMSIG(case_status)); \
		else if (WEXITSTATUS(case_status)) \
			printf("  signal 0, exit status %d\n", WEXITSTATUS(case_status)); \
	} while (0)

static pid_t helper = -1; /* the peer of the modes fd and sk */
static int fds_before;
static int service_sk = -1; /* the library's end in the mode fd, and what it was */
static ino_t service_ino;

/* Prepares a peer and points opts to it. */
static void prepare(criu_opts *o, enum mode m, const char *script)
{
	int sk[2], l;
	struct stat st;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char num[32], cwd[PATH_MAX];

	fds_before = count_fds();
	setenv("PEER_SCRIPT", script, 1);
	setenv("PEER_LOG", log_path, 1);
	snprintf(num, sizeof(num), "%d", fds_before);
	setenv("PEER_FDS", num, 1);
	snprintf(num, sizeof(num), "%d", getpid());
	setenv("PEER_PARENT", num, 1);
	if (getcwd(cwd, sizeof(cwd)))
		setenv("PEER_CWD", cwd, 1);
	switch (m) {
	case BIN:
		criu_local_set_service_binary(o, self_exe);
		return;
	case FD:
		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sk))
			abort();
		helper = fork();
		if (helper == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(sk[0]);
			peer_log = fopen(log_path, "ae");
			peer_play(sk[1], script);
			fclose(peer_log);
			_exit(0);
		}
		close(sk[1]);
		if (script[0] == 'x') /* dead before the call */
			waitpid(helper, NULL, 0);
		criu_local_set_service_fd(o, sk[0]);
		service_sk = sk[0];
		fstat(service_sk, &st);
		service_ino = st.st_ino;
		return;
	case SK:
		unlink(sock_path);
		strcpy(addr.sun_path, sock_path);
		l = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		if (bind(l, (struct sockaddr *)&addr, sizeof(addr)) || listen(l, 1))
			abort();
		helper = fork();
		if (helper == 0) {
			int c;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			c = accept(l, NULL, NULL);
			peer_log = fopen(log_path, "ae");
			peer_play(c, script);
			fclose(peer_log);
			_exit(0);
		}
		close(l);
		criu_local_set_service_address(o, sock_path);
		return;
	}
}

static int notify_ret, notify_at, notify_seen;

static int notify_cb(char *action, criu_notify_arg_t na)
{
	printf("  notify %s same=%d pid=%d\n", action ? action : "(null)", action == na->script, criu_notify_pid(na));
	return ++notify_seen == notify_at ? notify_ret : 0;
}

static int more_rounds, more_end;

static int more(criu_predump_info pi)
{
	printf("  more pi=%s\n", pi ? "set" : "null");
	return more_rounds-- > 0 ? 1 : more_end;
}

struct feats {
	unsigned char b[8];
	size_t size;
	int null;
};
static struct feats feats = { { 1, 0, 1, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa }, 3, 0 };

static int call(criu_opts *o, const char *action)
{
	if (!strcmp(action, "check"))
		return criu_local_check(o);
	if (!strcmp(action, "dump") || !strcmp(action, "dump-self"))
		return criu_local_dump(o);
	if (!strcmp(action, "pre_dump"))
		return criu_local_pre_dump(o);
	if (!strcmp(action, "restore"))
		return criu_local_restore(o);
	if (!strcmp(action, "restore_child"))
		return criu_local_restore_child(o);
	if (!strcmp(action, "version"))
		return criu_local_get_version(o);
	if (!strcmp(action, "check_version"))
		return criu_local_check_version(o, 40201);
	if (!strcmp(action, "iters"))
		return criu_local_dump_iters(o, more);
	if (!strcmp(action, "features")) {
		int ret = criu_local_feature_check(o, feats.null ? NULL : (struct criu_feature_check *)feats.b, feats.size);
		int err = errno;

		printf("  features");
		for (unsigned i = 0; i < sizeof(feats.b); i++)
			printf(" %02x", feats.b[i]);
		printf("\n");
		errno = err;
		return ret;
	}
	abort();
}

static void act(criu_opts *o, const char *action)
{
	int ret, err, children = 0, fds;
	struct stat st;

	errno = 77;
	ret = call(o, action);
	err = errno;
	fds = count_fds() - fds_before;
	if (service_sk >= 0 && !fstat(service_sk, &st) && st.st_ino == service_ino)
		close(service_sk); /* the call did not get as far as using it */
	service_sk = -1;
	if (helper > 0)
		waitpid(helper, NULL, 0);
	helper = -1;
	/* What is left: zombies, and children that run. */
	for (;;) {
		siginfo_t si = { 0 };

		if (waitid(P_ALL, 0, &si, WEXITED | WNOWAIT | WNOHANG) && errno == ECHILD)
			break;
		if (!si.si_pid)
			waitid(P_ALL, 0, &si, WEXITED | WNOWAIT);
		children++;
		waitpid(si.si_pid, NULL, 0);
	}
	printf("  %s ret %d errno %d\n", action, ret, err);
	printf("  left: descriptors %+d, children %d, orphan pts %s\n", fds, children,
	       criu_get_orphan_pts_master_fd() >= 0 ? "yes" : "none");
	fflush(stdout);
}

static criu_opts *fresh(void)
{
	criu_opts *o = NULL;

	if (criu_local_init_opts(&o))
		abort();
	return o;
}

/* The answers are packets in hex. */
#define FAIL(type)	"08" type "1000"
#define OK(type)	"08" type "1001"
#define ERRNO_17	"3811"
#define ERRMSG		"4a0c" "6e6f20737563682066696c65" /* no such file */
#define NOTIFY(body)	"s:08061001" "2a" body
#define PRE_DUMP_STAGE	"0a" "0a08" "7072652d64756d70" /* pre-dump, no pid */
#define POST_PID	"11" "0a0c" "706f73742d726573746f7265" "10d209" /* post-restore, pid 1234 */
#define OTHER_FIELDS	"f20603616263" "f80601" "fd0601020304" "f9060102030405060708"

struct script {
	const char *name, *text; /* %s stands for the type of the answer */
};

static const struct action_info {
	const char *name, *type, *other, *content;
} actions[] = {
	{ "check", "03", "01", "" },
	{ "dump", "01", "02", "1a00" },
	{ "pre_dump", "0d", "04", "1a00" },
	{ "restore", "02", "01", "220308d209" },
	{ "restore_child", "02", "01", "220308d209" },
	{ "version", "0a", "09", "5206080410022001" },
	{ "check_version", "0a", "09", "5206080410022001" },
	{ "features", "09", "0a", "4204" "08011001" },
};

static void actions_case(enum mode m, const struct action_info *a, const char *what, const char *script, int at, int ret,
			 bool tell)
{
	char name[200];

	snprintf(name, sizeof(name), "%s %s %s", a->name, mode_names[m], what);
	CASE(name, {
		criu_opts *o = fresh();

		if (tell)
			setenv("PEER_TELL", "1", 1);
		prepare(o, m, script);
		if (strcmp(a->name, "dump-self"))
			criu_local_set_pid(o, 4711);
		criu_local_set_images_dir_fd(o, 5);
		notify_at = at;
		notify_ret = ret;
		if (at >= 0)
			criu_local_set_notify_cb(o, at == 99 ? NULL : notify_cb);
		act(o, a->name);
		criu_local_free_opts(o);
	});
}

/* The reference waits for the end of restore_child's peer before it closes the connection: that peer must not wait. */
static char *ending(const struct action_info *a, char *script)
{
	size_t len = strlen(script);

	if (!strcmp(a->name, "restore_child") && len > 2 && !strcmp(script + len - 2, " w"))
		script[len - 2] = '\0';
	return script;
}

static void all_answers(enum mode m, const struct action_info *a)
{
	char s[400000], big[80001];

#define RUN(what, at, ret, ...) \
	do { \
		snprintf(s, sizeof(s), __VA_ARGS__); \
		actions_case(m, a, what, ending(a, s), at, ret, false); \
	} while (0)
#define SUCCESS "s:08%s1001%s"
	RUN("success", -1, 0, "r " SUCCESS " w", a->type, a->content);
	RUN("success with errno", -1, 0, "r " SUCCESS ERRNO_17 " w", a->type, a->content);
	RUN("success with unknown fields", -1, 0, "r " SUCCESS OTHER_FIELDS " w", a->type, a->content);
	RUN("failure", -1, 0, "r s:08%s1000 w", a->type);
	RUN("failure with errno", -1, 0, "r s:08%s1000" ERRNO_17 " w", a->type);
	RUN("failure with negative errno", -1, 0, "r s:08%s1000" "38ffffffffffffffffff01 w", a->type);
	RUN("failure with errno and message", -1, 0, "r s:08%s1000" ERRNO_17 ERRMSG " w", a->type);
	RUN("not understood", -1, 0, "r s:" FAIL("00") " w");
	RUN("not understood, with errno", -1, 0, "r s:" FAIL("00") ERRNO_17 " w");
	RUN("empty success", -1, 0, "r s:" OK("00") " w");
	RUN("other type", -1, 0, "r " SUCCESS " w", a->other, "");
	RUN("other type, failure with errno", -1, 0, "r s:08%s1000" ERRNO_17 " w", a->other);
	RUN("unknown type", -1, 0, "r s:08631001 w");
	RUN("garbage", -1, 0, "r s:ffffffffffffffffffffff w");
	RUN("text", -1, 0, "r s:68656c6c6f20776f726c64 w");
	RUN("cut short", -1, 0, "r s:08%s10 w", a->type);
	RUN("without type", -1, 0, "r s:1001 w");
	RUN("without success", -1, 0, "r s:08%s w", a->type);
	RUN("empty packet", -1, 0, "r s: w");
	RUN("death after the request", -1, 0, "r x");
	RUN("kill after the request", -1, 0, "r k");
	RUN("silence, then death", -1, 0, "r t x");
	RUN("notifications without a callback", -1, 0, "r " NOTIFY(PRE_DUMP_STAGE) " r " NOTIFY(POST_PID) " r " SUCCESS " w",
	    a->type, a->content);
	RUN("notifications, NULL callback", 99, 0, "r " NOTIFY(PRE_DUMP_STAGE) " r " SUCCESS " w", a->type, a->content);
	RUN("notifications", 0, 0, "r " NOTIFY(PRE_DUMP_STAGE) " r " NOTIFY(POST_PID) " r " NOTIFY("00") " r " SUCCESS " w",
	    a->type, a->content);
	RUN("notification marked as failure", 0, 0, "r s:080610002a" PRE_DUMP_STAGE " r " SUCCESS " w", a->type, a->content);
	RUN("notification with errno", 0, 0, "r s:080610012a" PRE_DUMP_STAGE ERRNO_17 " r " SUCCESS " w", a->type, a->content);
	RUN("callback refuses", 1, -33, "r " NOTIFY(PRE_DUMP_STAGE) " r w");
	RUN("callback refuses the second", 2, -33, "r " NOTIFY(PRE_DUMP_STAGE) " r " NOTIFY(POST_PID) " r w");
	RUN("callback returns 5", 1, 5, "r " NOTIFY(PRE_DUMP_STAGE) " r w");
	RUN("death after a notification's answer", 0, 0, "r " NOTIFY(PRE_DUMP_STAGE) " r x");
	RUN("descriptor with a notification", 0, 0, "r f:080610012a" PRE_DUMP_STAGE " r " SUCCESS " w", a->type, a->content);
	RUN("descriptor with the response", 0, 0, "r f:08%s1001%s w", a->type, a->content);
	RUN("two descriptors", 0, 0, "r F:080610012a" PRE_DUMP_STAGE " r " SUCCESS " w", a->type, a->content);
	memset(big, '6', 80000);
	big[80000] = '\0';
	RUN("large message", -1, 0, "r s:08%s10004ac0b802%s w", a->type, big);
	RUN("without content", -1, 0, "r s:08%s1001 w", a->type);
	RUN("notification without content", 0, 0, "r s:08061001 r " SUCCESS " w", a->type, a->content);
}

static void all_actions(void)
{
	for (unsigned i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
		const struct action_info *a = &actions[i];
		bool child = !strcmp(a->name, "restore_child");

		all_answers(child ? BIN : FD, a);
		if (!child) {
			actions_case(FD, a, "dead before the request", "x", -1, 0, false);
			actions_case(FD, a, "death with the request unread", "p x", -1, 0, false);
		}
		for (enum mode m = child ? BIN : SK; m <= BIN; m++) {
			char s[200];

			snprintf(s, sizeof(s), "r " NOTIFY(PRE_DUMP_STAGE) " r s:08%s1001%s w", a->type, a->content);
			actions_case(m, a, "told", ending(a, s), 0, 0, true);
			snprintf(s, sizeof(s), "r s:08%s1000" ERRNO_17 " w", a->type);
			actions_case(m, a, "failure, told", ending(a, s), -1, 0, true);
			actions_case(m, a, "death, told", "r x", -1, 0, true);
		}
	}

	static const struct action_info self = { "dump-self", "01", "02", "1a00" };

	actions_case(BIN, &self, "success", "r s:080110011a00 w", -1, 0, true);
	actions_case(BIN, &self, "restored", "r s:080110011a020801 w", -1, 0, true);
	actions_case(BIN, &self, "failure", "r s:08011000" ERRNO_17 " w", -1, 0, true);
	actions_case(FD, &self, "restored", "r s:080110011a020801 w", -1, 0, true);
	actions_case(SK, &self, "restored", "r s:080110011a020801 w", -1, 0, true);
}

/* Iterations: the callback's answers against the peer's. */
static void iters_case(const char *what, enum mode m, int rounds, int last, bool pid, const char *script)
{
	char name[200];

	snprintf(name, sizeof(name), "iters %s %s", mode_names[m], what);
	CASE(name, {
		criu_opts *o = fresh();

		prepare(o, m, script);
		if (pid)
			criu_local_set_pid(o, 4711);
		more_rounds = rounds;
		more_end = last;
		act(o, "iters");
		criu_local_free_opts(o);
	});
}

static void all_iters(void)
{
#define PRE "s:080410011a00"
#define FULL "s:080110011a00"
	for (enum mode m = FD; m <= BIN; m++) {
		iters_case("none", m, 0, 0, true, "r " PRE " r " FULL " w");
		iters_case("two", m, 2, 0, true, "r " PRE " r " PRE " r " PRE " r " FULL " w");
		iters_case("abort", m, 1, -9, true, "r " PRE " r " PRE " w");
		iters_case("pre-dump fails", m, 1, 0, true, "r " PRE " r s:08041000" ERRNO_17 " w");
		iters_case("dump fails", m, 0, 0, true, "r " PRE " r s:08011000" ERRNO_17 " w");
		iters_case("other type", m, 0, 0, true, "r s:08021001 w");
		iters_case("restored", m, 0, 0, true, "r " PRE " r s:080110011a020801 w");
	}
	iters_case("death between", FD, 1, 0, true, "r " PRE " p x");
	CASE("iters without pid", {
		criu_opts *o = fresh();

		prepare(o, FD, "w");
		errno = 77;
		int ret = criu_local_dump_iters(o, more);
		printf("  ret %d errno %d\n", ret, errno);
	});
	CASE("iters without callback", {
		criu_opts *o = fresh();

		prepare(o, FD, "w");
		criu_local_set_pid(o, 1);
		errno = 77;
		int ret = criu_local_dump_iters(o, NULL);
		printf("  ret %d errno %d\n", ret, errno);
	});
}

static void connections(void)
{
	char longest[300];

#define CONNECT(name, ...) \
	CASE("connect: " name, { \
		criu_opts *o = fresh(); \
		fds_before = count_fds(); \
		setenv("PEER_LOG", log_path, 1); \
		setenv("PEER_SCRIPT", "r s:" OK("03") " w", 1); \
		__VA_ARGS__; \
		act(o, "check"); \
	})
	memset(longest, 'a', sizeof(longest));
	longest[299] = '\0';
	CONNECT("no such socket", criu_local_set_service_address(o, "/nonexistent/socket"));
	CONNECT("default address, none there", criu_local_set_service_address(o, NULL));
	CONNECT("empty address", criu_local_set_service_address(o, ""));
	CONNECT("address too long", criu_local_set_service_address(o, longest));
	CONNECT("address of 108 bytes", longest[108] = 0; criu_local_set_service_address(o, longest));
	CONNECT("address of 107 bytes", longest[107] = 0; criu_local_set_service_address(o, longest));
	CONNECT("a file is no socket", criu_local_set_service_address(o, "/dev/null"));
	CONNECT("descriptor -1", criu_local_set_service_fd(o, -1));
	CONNECT("descriptor closed", criu_local_set_service_fd(o, 200));
	CONNECT("descriptor no socket", criu_local_set_service_fd(o, open("/dev/null", O_RDWR)); fds_before = count_fds());
	CONNECT("no such binary", criu_local_set_service_binary(o, "/nonexistent/criu"));
	CONNECT("binary not executable", criu_local_set_service_binary(o, "/dev/null"));
	CONNECT("default binary from PATH", (void)0);
	CONNECT("NULL binary from PATH", criu_local_set_service_binary(o, "/nonexistent"); criu_local_set_service_binary(o, NULL));
	CONNECT("empty binary", criu_local_set_service_binary(o, ""));
	CONNECT("binary by name from PATH", criu_local_set_service_binary(o, "other-criu"));
	CONNECT("last setter wins: binary", criu_local_set_service_fd(o, -1); criu_local_set_service_address(o, "/nonexistent");
		criu_local_set_service_binary(o, NULL));
	CONNECT("last setter wins: address", criu_local_set_service_binary(o, NULL);
		criu_local_set_service_address(o, "/nonexistent"));
	CONNECT("last setter wins: descriptor", criu_local_set_service_binary(o, NULL); criu_local_set_service_fd(o, -1));
	CONNECT("options anew", criu_local_set_service_address(o, "/nonexistent"); criu_local_init_opts(&o));

	CASE("descriptor used twice", {
		criu_opts *o = fresh();

		prepare(o, FD, "r s:" OK("03") " w");
		act(o, "check");
		act(o, "check");
	});
	CASE("global check before criu_init_opts", {
		setenv("PEER_LOG", log_path, 1);
		setenv("PEER_SCRIPT", "r s:" OK("03") " w", 1);
		errno = 77;
		int ret = criu_check();
		printf("  ret %d errno %d\n", ret, errno);
	});
	CASE("restore after restore_child", {
		criu_opts *o = fresh();

		prepare(o, BIN, "r s:08021001220308d209");
		act(o, "restore_child");
		act(o, "restore");
	});
	for (enum mode m = FD; m <= SK; m++) {
		char name[64];

		snprintf(name, sizeof(name), "restore_child after a service was set, %s", mode_names[m]);
		CASE(name, {
			criu_opts *o = fresh();

			setenv("PEER_TELL", "1", 1);
			prepare(o, m, "x");
			if (m == FD)
				setenv("PEER_SCRIPT", "r s:08021001220308d209", 1);
			else
				setenv("PEER_SCRIPT", "r s:08021001220308d209", 1), kill(helper, SIGKILL);
			act(o, "restore_child");
		});
	}
}

static void on_alarm(int sig)
{
	(void)sig;
}

static void interruptions(void)
{
	CASE("interrupted by a signal handler", {
		struct sigaction sa = { .sa_handler = on_alarm };
		criu_opts *o = fresh();

		sigaction(SIGALRM, &sa, NULL);
		prepare(o, FD, "r t s:" OK("03") " w");
		ualarm(50000, 0);
		act(o, "check");
	});
	CASE("signal disposition and mask in the peer", {
		criu_opts *o = fresh();
		sigset_t set;

		setenv("PEER_TELL", "1", 1);
		signal(SIGUSR2, SIG_IGN);
		signal(SIGTERM, on_alarm);
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		sigaddset(&set, SIGCHLD);
		sigprocmask(SIG_BLOCK, &set, NULL);
		prepare(o, BIN, "r s:" OK("03") " w");
		act(o, "check");
		sigprocmask(SIG_BLOCK, NULL, &set);
		printf("  afterwards SIGUSR1 blocked=%d SIGCHLD blocked=%d SIGTERM blocked=%d\n", sigismember(&set, SIGUSR1),
		       sigismember(&set, SIGCHLD), sigismember(&set, SIGTERM));
	});
	CASE("SIGCHLD ignored", {
		criu_opts *o = fresh();

		signal(SIGCHLD, SIG_IGN);
		prepare(o, BIN, "r s:" OK("03") " w");
		act(o, "check");
	});
}

static void feature_sizes(void)
{
	for (size_t size = 0; size <= 4; size++) {
		char name[64];

		snprintf(name, sizeof(name), "features, struct of %zu bytes", size);
		CASE(name, {
			criu_opts *o = fresh();

			feats.size = size;
			prepare(o, FD, "r s:08091001" "4204" "08011001 w");
			act(o, "features");
		});
	}
	CASE("features, struct of 5 bytes", {
		criu_opts *o = fresh();

		criu_local_set_service_address(o, "/nonexistent");
		errno = 77;
		int ret = criu_local_feature_check(o, (struct criu_feature_check *)feats.b, 5);
		printf("  ret %d errno %d\n", ret, errno);
	});
	CASE("features NULL", {
		criu_opts *o = fresh();

		feats.null = 1;
		prepare(o, FD, "w");
		errno = 77;
		int ret = criu_local_feature_check(o, NULL, 3);
		printf("  ret %d errno %d\n", ret, errno);
	});
}

static void versions(void)
{
	static const struct script s[] = {
		{ "4.2", "08041002" },
		{ "4.2.1", "080410022001" },
		{ "gitid", "080410021a016720" "01" },
		{ "empty gitid", "080410021a00" "2001" },
		{ "name and extra", "08041002200128053203616263" },
		{ "negative", "08ffffffffffffffffff011002" },
		{ "without minor", "0804" },
		{ "huge", "08ffffffff0710ffffffff07" },
	};

	for (unsigned i = 0; i < sizeof(s) / sizeof(s[0]); i++) {
		char name[64], script[200];

		snprintf(name, sizeof(name), "version %s", s[i].name);
		snprintf(script, sizeof(script), "r s:080a100152%02zx%s w", strlen(s[i].text) / 2, s[i].text);
		CASE(name, {
			criu_opts *o = fresh();

			prepare(o, FD, script);
			act(o, "version");
		});
	}
}

/*
 * Setters: each is followed by a request that carries the options. The peer is this process: the answer waits in the
 * socket before the question is sent.
 */
static void send_opts(criu_opts *o, bool global)
{
	static const unsigned char answer[] = { 8, 10, 16, 1, 0x52, 4, 8, 4, 16, 2 };
	static unsigned char buf[1 << 20];
	int sk[2], size = 1 << 20, ret;
	ssize_t n;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sk))
		abort();
	setsockopt(sk[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	if (send(sk[1], answer, sizeof(answer), 0) != sizeof(answer))
		abort();
	if (global)
		criu_set_service_fd(sk[0]);
	else
		criu_local_set_service_fd(o, sk[0]);
	errno = 77;
	ret = global ? criu_get_version() : criu_local_get_version(o);
	printf("  version ret %d errno %d\n", ret, errno);
	n = recv(sk[1], buf, sizeof(buf), MSG_DONTWAIT);
	printf("  req ");
	for (ssize_t i = 0; i < n; i++)
		printf("%02x", buf[i]);
	printf("\n");
	close(sk[1]);
}

static const char *text(size_t len)
{
	char *s = malloc(len + 1);

	memset(s, 'x', len);
	s[len] = '\0';
	return s;
}

#define SETTER(name, ...) \
	CASE("setter " name, { \
		criu_opts *o = fresh(); \
		bool global = !strncmp(name, "criu_set", 8) || !strncmp(name, "criu_add", 8) || !strncmp(name, "criu_join", 9); \
		if (criu_init_opts()) \
			abort(); \
		__VA_ARGS__; \
		send_opts(o, global); \
	})
#define RET(e) printf("  ret %d\n", e)

static void custom_setters(void)
{
	char *argv3[] = { "sh", "-c", "true", NULL }, *argv1[] = { "", NULL };

	SETTER("criu_local_set_page_server_address_port", RET(criu_local_set_page_server_address_port(o, "10.0.0.1", 4711)));
	SETTER("criu_local_set_page_server_address_port twice",
	       RET(criu_local_set_page_server_address_port(o, "10.0.0.1", 4711));
	       RET(criu_local_set_page_server_address_port(o, "", -1)));
	SETTER("criu_set_page_server_address_port", RET(criu_set_page_server_address_port("10.0.0.1", 0)));
	SETTER("criu_local_add_veth_pair", RET(criu_local_add_veth_pair(o, "a", "b")); RET(criu_local_add_veth_pair(o, "", "")));
	SETTER("criu_add_veth_pair", RET(criu_add_veth_pair("a", text(300))));
	SETTER("criu_local_add_ext_mount", RET(criu_local_add_ext_mount(o, "a", "b")); RET(criu_local_add_ext_mount(o, "c", "d")));
	SETTER("criu_add_ext_mount", RET(criu_add_ext_mount("a", "b")));
	SETTER("criu_local_add_cg_root", RET(criu_local_add_cg_root(o, "cpu", "/a")); RET(criu_local_add_cg_root(o, NULL, "/b")));
	SETTER("criu_add_cg_root", RET(criu_add_cg_root("", "")));
	SETTER("criu_local_add_inherit_fd", RET(criu_local_add_inherit_fd(o, 5, "pipe[1]"));
	       RET(criu_local_add_inherit_fd(o, -1, "pipe[2]")));
	SETTER("criu_add_inherit_fd", RET(criu_add_inherit_fd(INT_MAX, "a")));
	SETTER("criu_local_add_inherit_fd to a service", criu_local_set_service_address(o, NULL);
	       RET(criu_local_add_inherit_fd(o, 5, "pipe[1]")));
	SETTER("criu_local_add_inherit_fd to a descriptor", criu_local_set_service_fd(o, 1);
	       RET(criu_local_add_inherit_fd(o, 5, "pipe[1]")));
	SETTER("criu_local_add_unix_sk", RET(criu_local_add_unix_sk(o, 1)); RET(criu_local_add_unix_sk(o, UINT_MAX)));
	SETTER("criu_local_add_unix_sk after true", criu_local_set_ext_unix_sk(o, true); RET(criu_local_add_unix_sk(o, 1)));
	SETTER("criu_local_add_unix_sk after false", criu_local_set_ext_unix_sk(o, false); RET(criu_local_add_unix_sk(o, 1)));
	SETTER("criu_local_add_unix_sk around false", RET(criu_local_add_unix_sk(o, 1)); criu_local_set_ext_unix_sk(o, false);
	       RET(criu_local_add_unix_sk(o, 2)); RET(criu_local_add_unix_sk(o, 3)));
	SETTER("criu_add_unix_sk", RET(criu_add_unix_sk(0)));
	SETTER("criu_local_join_ns_add", RET(criu_local_join_ns_add(o, "net", "123", NULL));
	       RET(criu_local_join_ns_add(o, "user", "/proc/1/ns/user", "0,0")));
	SETTER("criu_local_join_ns_add NULL", RET(criu_local_join_ns_add(o, NULL, "123", NULL));
	       RET(criu_local_join_ns_add(o, "net", NULL, NULL)));
	SETTER("criu_join_ns_add", RET(criu_join_ns_add("uts", "1", "")));
	SETTER("criu_local_set_exec_cmd", RET(criu_local_set_exec_cmd(o, 3, argv3)));
	SETTER("criu_local_set_exec_cmd twice", RET(criu_local_set_exec_cmd(o, 3, argv3)); RET(criu_local_set_exec_cmd(o, 1, argv1)));
	SETTER("criu_local_set_exec_cmd none", RET(criu_local_set_exec_cmd(o, 3, argv3)); RET(criu_local_set_exec_cmd(o, 0, argv3)));
	SETTER("criu_set_exec_cmd", RET(criu_set_exec_cmd(2, argv3)));
	SETTER("criu_local_set_notify_cb", criu_local_set_notify_cb(o, notify_cb));
	SETTER("criu_local_set_notify_cb NULL", criu_local_set_notify_cb(o, NULL));
	SETTER("criu_set_notify_cb", criu_set_notify_cb(notify_cb));
	SETTER("criu_local_ none", (void)0);
	SETTER("criu_set none", (void)0);
	SETTER("criu_local_ init again", criu_local_set_pid(o, 1); criu_local_set_log_file(o, "x"); criu_local_init_opts(&o));
	SETTER("criu_set init again", criu_set_pid(1); criu_set_log_file("x"); RET(criu_init_opts()));
	SETTER("criu_local_ request above the socket's limit", criu_local_set_log_file(o, text(3 << 20)));
	SETTER("criu_local_ many", for (int i = 0; i < 3000; i++) criu_local_add_external(o, "external"));
#ifdef CRIU_COMPRESS_MAX_ACCELERATION /* 4.3 */
	SETTER("criu_local_compress on", RET(criu_local_set_compress(o, 1)); RET(criu_local_set_compress(o, 1)));
	SETTER("criu_local_compress tuned", RET(criu_local_set_compress_acceleration(o, 7));
	       RET(criu_local_set_compress_block_size(o, 8192)));
	SETTER("criu_local_compress tuned the other way round", RET(criu_local_set_compress_block_size(o, 8192));
	       RET(criu_local_set_compress_acceleration(o, 7)));
	SETTER("criu_local_compress tuned, then off and on", RET(criu_local_set_compress_acceleration(o, 7));
	       RET(criu_local_set_compress(o, 0)); RET(criu_local_set_compress(o, 1)));
	SETTER("criu_local_compress off, then tuned", RET(criu_local_set_compress(o, 0));
	       RET(criu_local_set_compress_block_size(o, 8192)));
	SETTER("criu_local_add_plugin_option", RET(criu_local_add_plugin_option(o, "a.b")); RET(criu_local_add_plugin_option(o, "a.b=c"));
	       RET(criu_local_add_plugin_option(o, "a.")); RET(criu_local_add_plugin_option(o, ".b"));
	       RET(criu_local_add_plugin_option(o, "a.=b")); RET(criu_local_add_plugin_option(o, "=a.b"));
	       RET(criu_local_add_plugin_option(o, "")); RET(criu_local_add_plugin_option(o, "a"));
	       RET(criu_local_add_plugin_option(o, NULL)));
	SETTER("criu_add_plugin_option", RET(criu_add_plugin_option("a.b.c=d=e")));
#endif
	CASE("misc", {
		criu_free_opts();
		criu_free_opts();
		criu_local_free_opts(NULL);
		printf("  notify pid of nothing: %d\n", criu_get_orphan_pts_master_fd());
		printf("  add_irmap_path(NULL object): %d\n", criu_local_add_irmap_path(NULL, "x"));
	});
}

/* Misuse: the reference crashes in most of these, which is no behaviour to keep; nothing may crash here. */
static void misuse(void)
{
	CASE("misuse: NULL string", {
		criu_opts *o = fresh();
		RET(criu_local_set_log_file(o, NULL));
	});
	CASE("misuse: NULL element", {
		criu_opts *o = fresh();
		RET(criu_local_add_ext_mount(o, NULL, "x"));
	});
	CASE("misuse: negative argc", {
		criu_opts *o = fresh();
		char *argv[] = { "x", NULL };
		RET(criu_local_set_exec_cmd(o, -1, argv));
	});
	CASE("misuse: NULL argv", {
		criu_opts *o = fresh();
		RET(criu_local_set_exec_cmd(o, 1, NULL));
	});
	CASE("misuse: global setter before criu_init_opts", {
		criu_set_pid(1);
		RET(criu_set_log_file("x"));
	});
	CASE("misuse: global dump before criu_init_opts", RET(criu_dump()));
	CASE("misuse: local dump without options", RET(criu_local_dump(NULL)));
	CASE("misuse: init of NULL", RET(criu_local_init_opts(NULL)));
	CASE("misuse: notify pid of NULL", RET(criu_notify_pid(NULL)));
}

static void setters(void)
{
#include "setters.inc"
}

int main(int argc, char **argv)
{
	char dir[PATH_MAX];

	if (argc == 3 && !strcmp(argv[1], "swrk"))
		return peer_main(argv);
	if (argc < 2 || readlink("/proc/self/exe", self_exe, sizeof(self_exe) - 1) < 0 || !realpath(argv[1], dir))
		return 2;
	snprintf(log_path, sizeof(log_path), "%.4000s/log", dir);
	snprintf(sock_path, sizeof(sock_path), "%.4000s/sock", dir);
	if (chdir(dir))
		return 2;
	signal(SIGPIPE, SIG_DFL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* The reference's errno is what perror() leaves, which depends on standard error being open for reading. */
	dup2(open("/dev/null", O_RDWR), STDERR_FILENO);
	if (argc > 2 && !strcmp(argv[2], "version")) {
		puts(criu_lib_version);
		return 0;
	}
	if (argc <= 2)
		setters();
	custom_setters();
	misuse();
	connections();
	interruptions();
	feature_sizes();
	versions();
	all_iters();
	all_actions();
	return 0;
}
