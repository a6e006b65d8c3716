/* SPDX-License-Identifier: Apache-2.0 */

/* Every setter and, after each, a few actions, in one process that frees all it made: for valgrind and the sanitizers. */
#include <criu/criu.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dir;

static void with_peer(criu_opts *o, const void *answer, size_t len)
{
	static unsigned char req[1 << 20];
	int sk[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) || send(sk[1], answer, len, 0) != (ssize_t)len)
		abort();
	criu_local_set_service_fd(o, sk[0]);
	criu_local_set_images_dir_fd(o, dir);
	criu_local_set_log_file(o, "log");
	criu_local_dump(o);
	if (recv(sk[1], req, sizeof(req), MSG_DONTWAIT) < 0 && errno != EAGAIN)
		abort();
	close(sk[1]);
	if (!criu_local_get_errmsg(o) || !criu_local_get_log_error(o))
		abort();
}

static void write_log(void)
{
	static char line[10000];
	int fd = openat(dir, "log", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	if (write(fd, line, sizeof(line)) < 0 || write(fd, "(00.1) Error (a.c:1): it failed\n", 32) < 0)
		abort();
	close(fd);
}

static void actions(criu_opts *o)
{
#define ANSWER(s) with_peer(o, s, sizeof(s) - 1)
	ANSWER("\x08\x01\x10\x01\x1a\x00");
	write_log();
	ANSWER("\x08\x01\x10\x00\x38\x11\x4a\x0cno such file");
	ANSWER("\x08\x00\x10\x00");
	ANSWER("garbage");
}

static const char *text(size_t len)
{
	static char buf[4][70001];
	static int n;
	char *s = buf[n++ % 4];

	memset(s, 'x', len);
	s[len] = '\0';
	return s;
}

#define SETTER(name, ...) \
	{ \
		criu_opts *o = NULL; \
		if (criu_local_init_opts(&o) || criu_init_opts()) \
			abort(); \
		__VA_ARGS__; \
		actions(o); \
		criu_local_free_opts(o); \
		criu_free_opts(); \
	}
#define RET(e) (void)(e)

int main(int argc, char **argv)
{
	char *cmd[] = { "a", "b", NULL };

	dir = open(argc > 1 ? argv[1] : ".", O_DIRECTORY | O_CLOEXEC);
#include "setters.inc"
	SETTER("exec", RET(criu_local_set_exec_cmd(o, 2, cmd)); RET(criu_local_set_exec_cmd(o, 1, cmd)));
	SETTER("messages", RET(criu_local_add_ext_mount(o, "k", "v")); RET(criu_local_add_veth_pair(o, "k", "v"));
	       RET(criu_local_add_cg_root(o, NULL, "v")); RET(criu_local_join_ns_add(o, "k", "v", NULL));
	       RET(criu_local_add_inherit_fd(o, 1, "v")); RET(criu_local_add_unix_sk(o, 1));
	       RET(criu_local_set_page_server_address_port(o, "v", 1)); RET(criu_local_add_plugin_option(o, "a.b")));
	SETTER("service", RET(criu_local_set_service_address(o, "/nonexistent")); RET(criu_local_check(o));
	       RET(criu_local_set_service_binary(o, "/nonexistent")));
	close(dir);
	return 0;
}
