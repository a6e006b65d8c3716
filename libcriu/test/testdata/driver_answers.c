/* SPDX-License-Identifier: Apache-2.0 */

/* Cases of what a peer says, how it can be reached, and what happens meanwhile. */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

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

void all_actions(void)
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

void all_iters(void)
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

void connections(void)
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

void interruptions(void)
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

void feature_sizes(void)
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

void versions(void)
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
