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
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char self_exe[PATH_MAX], sock_path[PATH_MAX];
char log_path[PATH_MAX];

const char *const mode_names[] = { "fd", "sk", "bin" };

void print_log(void)
{
	FILE *f = fopen(log_path, "re");
	char line[4096];

	while (f && fgets(line, sizeof(line), f))
		fputs(line, stdout);
	if (f)
		fclose(f);
	unlink(log_path);
}

pid_t helper = -1; /* the peer of the modes fd and sk */
int fds_before;
static int service_sk = -1; /* the library's end in the mode fd, and what it was */
static ino_t service_ino;

/* Prepares a peer and points opts to it. */
void prepare(criu_opts *o, enum mode m, const char *script)
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
			peer_run(sk[1], script);
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
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			peer_run(accept(l, NULL, NULL), script);
		}
		close(l);
		criu_local_set_service_address(o, sock_path);
		return;
	}
}

int notify_ret, notify_at;
static int notify_seen;

int notify_cb(char *action, criu_notify_arg_t na)
{
	printf("  notify %s same=%d pid=%d\n", action ? action : "(null)", action == na->script, criu_notify_pid(na));
	return ++notify_seen == notify_at ? notify_ret : 0;
}

int more_rounds, more_end;

int more(criu_predump_info pi)
{
	printf("  more pi=%s\n", pi ? "set" : "null");
	return more_rounds-- > 0 ? 1 : more_end;
}

struct feats feats = { { 1, 0, 1, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa }, 3, 0 };

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

void act(criu_opts *o, const char *action)
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

criu_opts *fresh(void)
{
	criu_opts *o = NULL;

	if (criu_local_init_opts(&o))
		abort();
	return o;
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
