/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls one action of the library, for tests with a real CRIU.
 *
 *	real PEER ACTION DIR [WORD=VALUE...]
 *
 * PEER is bin, sk:PATH or fd:PATH (connected here). DIR is the images directory. Prints "NAME RET ERRNO" and, on lines
 * of their own, notifications and texts. Words: pid=N, log=NAME, refuse=STAGE, join=KIND:PATH, config=FILE,
 * leave_running, rounds=N, out=FILE (self-dump), image_at=DIR.
 *
 *	real victim FILE     counts in memory and in FILE until it is killed
 */
#include <criu/criu.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void victim(const char *path)
{
	char buf[32];
	int fd;

	setsid();
	close_range(0, ~0U, 0);
	for (int i = 0; i < 3; i++)
		open("/dev/null", O_RDWR);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	for (unsigned n = 1;; n++) {
		if (pwrite(fd, buf, (size_t)snprintf(buf, sizeof(buf), "%010u\n", n), 0) < 0)
			abort();
		usleep(2000);
	}
}

static const char *refuse;

static int on_notify(char *action, criu_notify_arg_t na, void *data)
{
	printf("notify %s %d %s\n", action, criu_notify_pid(na), (char *)data);
	return refuse && !strcmp(action, refuse) ? -77 : 0;
}

static int rounds;

static int more(criu_predump_info pi)
{
	static int n;
	char name[32], parent[48];
	int fd;

	(void)pi;
	/* Images of a round have a directory of their own, which points to the one before. */
	snprintf(name, sizeof(name), "%d", ++n);
	snprintf(parent, sizeof(parent), "../%d", n - 1);
	mkdir(name, 0700);
	fd = open(name, O_DIRECTORY | O_CLOEXEC);
	criu_set_images_dir_fd(fd);
	criu_set_parent_images(parent);
	return n < rounds;
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		perror(path);
	return fd;
}

/* A page server ends with its first connection. */
static void visit(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(s, (struct sockaddr *)&a, sizeof(a)))
		perror("connect");
	close(s);
}

static const char *word(const char *arg, const char *name)
{
	size_t n = strlen(name);

	return strncmp(arg, name, n) ? NULL : arg + n;
}

int main(int argc, char **argv)
{
	const char *peer = argv[1], *action = argv[2], *v, *out = NULL;
	int ret, status, dir, port = -1;

	if (argc == 3 && !strcmp(argv[1], "victim"))
		victim(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (criu_init_opts())
		return 2;
	dir = open(argv[3], O_DIRECTORY | O_CLOEXEC);
	criu_set_images_dir_fd(dir);
	criu_set_log_level(4);
	if (strcmp(action, "self")) /* one that is frozen answers no notification */
		criu_set_notify_cb_data(on_notify, "data");
	if ((v = word(peer, "sk:")))
		criu_set_service_address(v);
	if ((v = word(peer, "fd:")))
		criu_set_service_fd(connect_to(v));
	criu_set_log_file("log");
	for (int i = 4; i < argc; i++) {
		if ((v = word(argv[i], "pid=")))
			criu_set_pid(atoi(v));
		else if ((v = word(argv[i], "log=")))
			criu_set_log_file(v);
		else if ((v = word(argv[i], "refuse=")))
			refuse = v;
		else if ((v = word(argv[i], "rounds=")))
			rounds = atoi(v);
		else if ((v = word(argv[i], "config=")))
			criu_set_config_file(v);
		else if ((v = word(argv[i], "out=")))
			out = v;
		else if ((v = word(argv[i], "dirfd=")))
			criu_set_images_dir_fd(atoi(v));
		else if ((v = word(argv[i], "images_dir=")))
			criu_set_images_dir(v);
		else if (!strcmp(argv[i], "leave_running"))
			criu_set_leave_running(true);
		else if (!strcmp(argv[i], "subreaper"))
			prctl(PR_SET_CHILD_SUBREAPER, 1);
		else if (!strcmp(argv[i], "track_mem"))
			criu_set_track_mem(true);
		else if ((v = word(argv[i], "join="))) {
			char kind[16], *colon = strchr(v, ':');

			snprintf(kind, sizeof(kind), "%.*s", (int)(colon - v), v);
			criu_join_ns_add(kind, colon + 1, NULL);
		} else
			return 2;
	}

	if (!strcmp(action, "check")) {
		ret = criu_check();
	} else if (!strcmp(action, "dump")) {
		ret = criu_dump();
	} else if (!strcmp(action, "pre_dump")) {
		ret = criu_pre_dump();
	} else if (!strcmp(action, "iters")) {
		mkdir("0", 0700);
		criu_set_images_dir_fd(open("0", O_DIRECTORY | O_CLOEXEC));
		criu_set_track_mem(true);
		ret = criu_dump_iters(more);
	} else if (!strcmp(action, "restore")) {
		ret = criu_restore();
	} else if (!strcmp(action, "restore_child") || !strcmp(action, "restore_child_kill")) {
		ret = criu_restore_child();
		printf("%s %d %d\n", action, ret, errno);
		if (ret > 0) {
			if (!strcmp(action, "restore_child_kill"))
				kill(ret, SIGKILL);
			if (waitpid(ret, &status, 0) != ret)
				status = -1;
			printf("waited %d\n", status);
		}
		printf("errmsg %s\nlog %s\n", criu_get_errmsg(), criu_get_log_error());
		return 0;
	} else if (!strcmp(action, "version")) {
		ret = criu_get_version();
	} else if (!strcmp(action, "features")) {
		struct criu_feature_check f = { true, true, true, true };

		ret = criu_feature_check(&f, sizeof(f));
		printf("features %d %d %d %d\n", f.mem_track, f.lazy_pages, f.pidfd_store, f.mem_compression);
	} else if (!strcmp(action, "cpuinfo")) {
		ret = criu_cpuinfo_dump();
		if (!ret) {
			if ((v = word(peer, "fd:")))
				criu_set_service_fd(connect_to(v));
			ret = criu_cpuinfo_check();
		}
	} else if (!strcmp(action, "page_server")) {
		criu_set_page_server_address_port("127.0.0.1", 0);
		ret = criu_page_server_child(&port);
		printf("child %d %d port %d\n", ret > 0, errno, port > 0);
		if (ret > 0) {
			visit(port);
			status = -1;
			ret = criu_wait_pid(ret, &status);
			printf("wait_pid %d %d status %d\n", ret, ret ? errno : 0, status >= 0);
		}
		/* In the background; and one that nobody waits for. */
		port = -1;
		ret = criu_page_server(&port);
		printf("background %d port %d\n", ret >= 0, port > 0);
		visit(port);
		port = -1;
		ret = criu_page_server_child(&port);
		printf("left %d port %d\n", ret > 0, port > 0);
		visit(port);
		criu_free_opts();
		printf("children %d\n", waitpid(-1, NULL, WNOHANG) >= 0);
		ret = criu_init_opts();
	} else if (!strcmp(action, "self")) {
		/* Two lives: the one that dumps, and the restored one, which comes back from the same call. */
		int fd = open(out, O_WRONLY | O_CREAT | O_APPEND, 0600);

		for (int i = 0; i < 3; i++) {
			close(i);
			open("/dev/null", O_RDWR);
		}
		setsid();
		dprintf(fd, "before\n");
		ret = criu_dump();
		status = errno;
		dprintf(fd, "self %d %d children %d %s\n", ret, status, waitpid(-1, NULL, WNOHANG) >= 0, criu_get_errmsg());
		_exit(ret == 1 ? 17 : 18);
	} else {
		return 2;
	}
	printf("%s %d %d\n", action, ret, errno);
	printf("errmsg %s\nlog %s\n", criu_get_errmsg(), criu_get_log_error());
	return 0;
}
