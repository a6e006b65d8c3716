/* SPDX-License-Identifier: Apache-2.0 */

/* Cases of the setters, and of their misuse. */
#include "driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

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

void custom_setters(void)
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
void misuse(void)
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

void setters(void)
{
#include "setters.inc"
}
