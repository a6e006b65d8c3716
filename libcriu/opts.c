/* SPDX-License-Identifier: Apache-2.0 */

/* The options object, and the setters that are more than one field with one value. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

EXPORT const char *criu_lib_version = CRIU_VERSION;

criu_opts *criu_global_opts;

static void field_free(struct field *f)
{
	if (f->cap)
		free(f->heap);
	f->len = 0;
	f->cap = 0;
}

/* Room for n bytes behind the first keep ones. NULL: there is no memory, and the field is as it was. */
static uint8_t *field_room(struct field *f, size_t keep, size_t n)
{
	size_t need = keep + n, cap = f->cap ? f->cap : 32;
	uint8_t *heap;

	if (f->cap && need <= f->cap)
		return f->heap + keep;
	if (need > INT32_MAX) /* no message of protobuf is larger */
		return NULL;
	while (cap < need)
		cap *= 2;
	heap = realloc(f->cap ? f->heap : NULL, cap);
	if (!heap)
		return NULL;
	f->heap = heap;
	f->cap = (uint32_t)cap;
	return heap + keep;
}

void opt_varint(criu_opts *o, unsigned num, uint64_t v)
{
	struct field *f;
	uint8_t *p;

	if (!o)
		return;
	f = &o->field[num];
	p = put_varint(put_varint(f->inl, wire_tag(num, WIRE_VARINT)), v);
	f->len = (uint32_t)(p - f->inl);
}

static size_t string_size(unsigned num, size_t len)
{
	return varint_size(wire_tag(num, WIRE_BYTES)) + varint_size(len) + len;
}

static uint8_t *put_string(uint8_t *p, unsigned num, const char *s, size_t len)
{
	p = put_varint(put_varint(p, wire_tag(num, WIRE_BYTES)), len);
	memcpy(p, s, len);
	return p + len;
}

int opt_string(criu_opts *o, unsigned num, const char *s, bool append)
{
	struct field *f;
	size_t len, keep;
	uint8_t *p;

	if (!o || !s)
		return -EINVAL;
	f = &o->field[num];
	len = strlen(s);
	keep = append ? f->len : 0;
	p = field_room(f, keep, string_size(num, len));
	if (!p)
		return -ENOMEM;
	f->len = (uint32_t)(put_string(p, num, s, len) - f->heap);
	return 0;
}

/* The value of a number, or absent where it is not set. */
int64_t opt_int(const criu_opts *o, unsigned num, int64_t absent)
{
	const struct field *f = &o->field[num];
	uint64_t v = 0;

	if (!f->len)
		return absent;
	for (unsigned i = (unsigned)varint_size(wire_tag(num, WIRE_VARINT)), shift = 0; i < f->len; i++, shift += 7)
		v |= (uint64_t)(f->inl[i] & 0x7f) << shift;
	return (int64_t)v;
}

/*
 * Adds to the field num a message of up to two strings (numbered 1 and 2; NULL is left out) and a number (numbered
 * number_num, where that is not 0), which is what the messages inside criu_opts look like.
 */
struct element {
	const char *str[3];
	unsigned number_num;
	uint64_t number;
};

static int opt_element(criu_opts *o, unsigned num, const struct element *e, bool append)
{
	struct field *f = &o->field[num];
	size_t body = 0, keep = append ? f->len : 0, len[3] = { 0 };
	uint8_t *p;

	for (unsigned i = 0; i < 3; i++) {
		if (!e->str[i])
			continue;
		len[i] = strlen(e->str[i]);
		body += string_size(i + 1, len[i]);
	}
	if (e->number_num)
		body += varint_size(wire_tag(e->number_num, WIRE_VARINT)) + varint_size(e->number);

	p = field_room(f, keep, string_size(num, body));
	if (!p)
		return -ENOMEM;
	p = put_varint(put_varint(p, wire_tag(num, WIRE_BYTES)), body);
	for (unsigned i = 0; i < 3; i++)
		if (e->str[i])
			p = put_string(p, i + 1, e->str[i], len[i]);
	if (e->number_num)
		p = put_varint(put_varint(p, wire_tag(e->number_num, WIRE_VARINT)), e->number);
	f->len = (uint32_t)(p - f->heap);
	return 0;
}

/* The life of an object. */

EXPORT void criu_free_service(criu_opts *opts)
{
	if (!opts)
		return;
	free(opts->service_path);
	opts->service_path = NULL;
}

EXPORT void criu_local_free_opts(criu_opts *opts)
{
	if (!opts)
		return;
	conn_close(&opts->kept);
	for (unsigned i = 0; i <= FIELD_MAX; i++)
		field_free(&opts->field[i]);
	criu_free_service(opts);
	errtext_clear(opts);
	free(opts);
}

EXPORT void criu_free_opts(void)
{
	criu_local_free_opts(criu_global_opts);
	criu_global_opts = NULL;
}

EXPORT int criu_local_init_opts(criu_opts **opts)
{
	criu_opts *o;

	if (!opts)
		return -1;
	criu_local_free_opts(*opts);
	*opts = NULL;

	o = calloc(1, sizeof(*o));
	if (!o)
		return -1;
	o->comm = CRIU_COMM_BIN;
	o->service_fd = -1;
	o->orphan_pts_master_fd = -1;
	o->kept.fd = -1;
	opt_defaults(o);
	*opts = o;
	return 0;
}

EXPORT int criu_init_opts(void)
{
	return criu_local_init_opts(&criu_global_opts);
}

/* Where CRIU is; the last of these calls decides. */

static int set_service_path(criu_opts *o, enum criu_service_comm comm, const char *path)
{
	char *copy = NULL;

	if (!o)
		return -EINVAL;
	if (path) {
		copy = strdup(path);
		if (!copy)
			return -ENOMEM;
	}
	criu_free_service(o);
	o->service_path = copy;
	o->comm = comm;
	return 0;
}

EXPORT int criu_local_set_service_address(criu_opts *opts, const char *path)
{
	return set_service_path(opts, CRIU_COMM_SK, path);
}

EXPORT int criu_local_set_service_binary(criu_opts *opts, const char *path)
{
	return set_service_path(opts, CRIU_COMM_BIN, path);
}

EXPORT void criu_local_set_service_fd(criu_opts *opts, int fd)
{
	if (!opts)
		return;
	criu_free_service(opts);
	opts->service_fd = fd;
	opts->comm = CRIU_COMM_FD;
}

/* Notifications. */

EXPORT void criu_local_set_notify_cb(criu_opts *opts, int (*cb)(char *action, criu_notify_arg_t na))
{
	if (!opts)
		return;
	opts->notify = cb;
	opts->notify_data = NULL;
	opt_varint(opts, FIELD_NOTIFY_SCRIPTS, true);
}

EXPORT void criu_local_set_notify_cb_data(criu_opts *opts, int (*cb)(char *action, criu_notify_arg_t na, void *data),
					  void *data)
{
	if (!opts)
		return;
	opts->notify = NULL;
	opts->notify_data = cb;
	opts->notify_arg = data;
	opt_varint(opts, FIELD_NOTIFY_SCRIPTS, true);
}

EXPORT int criu_notify_pid(criu_notify_arg_t na)
{
	return na && na->has_pid ? na->pid : 0;
}

/* Setters with more than one argument, or with an effect beyond their field. */

EXPORT int criu_local_set_page_server_address_port(criu_opts *opts, const char *address, int port)
{
	struct element e = { .str = { address }, .number_num = 2, .number = (uint64_t)(int64_t)port };

	return opts && address ? opt_element(opts, FIELD_PS, &e, false) : -EINVAL;
}

EXPORT int criu_local_add_veth_pair(criu_opts *opts, const char *in, const char *out)
{
	struct element e = { .str = { in, out } };

	return opts && in && out ? opt_element(opts, FIELD_VETHS, &e, true) : -EINVAL;
}

EXPORT int criu_local_add_ext_mount(criu_opts *opts, const char *key, const char *val)
{
	struct element e = { .str = { key, val } };

	return opts && key && val ? opt_element(opts, FIELD_EXT_MNT, &e, true) : -EINVAL;
}

EXPORT int criu_local_add_cg_root(criu_opts *opts, const char *ctrl, const char *path)
{
	struct element e = { .str = { ctrl, path } };

	return opts && path ? opt_element(opts, FIELD_CG_ROOT, &e, true) : -EINVAL;
}

EXPORT int criu_local_add_inherit_fd(criu_opts *opts, int fd, const char *key)
{
	struct element e = { .str = { key }, .number_num = 2, .number = (uint64_t)(int64_t)fd };

	if (!opts || !key)
		return -EINVAL;
	/* Only a peer that we start ourselves has our descriptors. */
	if (opts->comm != CRIU_COMM_BIN)
		return -1;
	return opt_element(opts, FIELD_INHERIT_FD, &e, true);
}

EXPORT int criu_local_add_unix_sk(criu_opts *opts, unsigned int inode)
{
	struct element e = { .number_num = 1, .number = inode };
	struct field *f;

	if (!opts)
		return -EINVAL;
	f = &opts->field[FIELD_UNIX_SK_INO];
	if (!opt_int(opts, FIELD_EXT_UNIX_SK, true)) {
		/* The two contradict each other: what was said about all sockets wins, and the inodes are forgotten. */
		f->len = 0;
		return -1;
	}
	if (opt_element(opts, FIELD_UNIX_SK_INO, &e, true))
		return -ENOMEM;
	opt_varint(opts, FIELD_EXT_UNIX_SK, true);
	return 0;
}

EXPORT int criu_local_join_ns_add(criu_opts *opts, const char *ns, const char *ns_file, const char *extra_opt)
{
	struct element e = { .str = { ns, ns_file, extra_opt } };

	if (!opts)
		return -EINVAL;
	if (!ns || !ns_file)
		return -1;
	return opt_element(opts, FIELD_JOIN_NS, &e, true);
}

EXPORT int criu_local_set_exec_cmd(criu_opts *opts, int argc, char *argv[])
{
	struct field *f, fresh = { 0 };
	size_t size = 0;
	uint8_t *p;

	if (!opts || argc < 0 || (argc && !argv))
		return -EINVAL;
	for (int i = 0; i < argc; i++) {
		if (!argv[i])
			return -EINVAL;
		size += string_size(FIELD_EXEC_CMD, strlen(argv[i]));
	}
	if (size) {
		p = field_room(&fresh, 0, size);
		if (!p)
			return -ENOMEM;
		for (int i = 0; i < argc; i++)
			p = put_string(p, FIELD_EXEC_CMD, argv[i], strlen(argv[i]));
		fresh.len = (uint32_t)size;
	}
	f = &opts->field[FIELD_EXEC_CMD];
	field_free(f);
	*f = fresh;
	return 0;
}

EXPORT int criu_local_add_plugin_option(criu_opts *opts, const char *option)
{
	const char *dot;
	size_t name;

	if (!opts || !option)
		return -EINVAL;
	/* PLUGIN.NAME[=VALUE], neither name empty. */
	name = strcspn(option, "=");
	dot = memchr(option, '.', name);
	if (!dot || dot == option || dot + 1 == option + name)
		return -EINVAL;
	return opt_string(opts, FIELD_PLUGIN_OPTIONS, option, true);
}

/* The three that go together: what tunes compression turns it on, and turning it off forgets how it was tuned. */

#define COMPRESS_PAGE 4096

EXPORT int criu_local_set_compress(criu_opts *opts, enum criu_compress_mode mode)
{
	if (!opts || (mode != CRIU_COMPRESS_OFF && mode != CRIU_COMPRESS_BLOCK))
		return -EINVAL;
	opt_varint(opts, FIELD_COMPRESS, mode);
	if (mode == CRIU_COMPRESS_OFF) {
		opts->field[FIELD_COMPRESS_ACCELERATION].len = 0;
		opts->field[FIELD_COMPRESS_BLOCK_SIZE].len = 0;
	}
	return 0;
}

EXPORT int criu_local_set_compress_acceleration(criu_opts *opts, unsigned int acceleration)
{
	if (!opts || acceleration < 1 || acceleration > CRIU_COMPRESS_MAX_ACCELERATION)
		return -EINVAL;
	opt_varint(opts, FIELD_COMPRESS, CRIU_COMPRESS_BLOCK);
	opt_varint(opts, FIELD_COMPRESS_ACCELERATION, acceleration);
	if (!opts->field[FIELD_COMPRESS_BLOCK_SIZE].len)
		opt_varint(opts, FIELD_COMPRESS_BLOCK_SIZE, COMPRESS_PAGE);
	return 0;
}

EXPORT int criu_local_set_compress_block_size(criu_opts *opts, unsigned int bytes)
{
	if (!opts || bytes < COMPRESS_PAGE || bytes > CRIU_COMPRESS_MAX_BLOCK_SIZE || bytes % COMPRESS_PAGE)
		return -EINVAL;
	opt_varint(opts, FIELD_COMPRESS, CRIU_COMPRESS_BLOCK);
	opt_varint(opts, FIELD_COMPRESS_BLOCK_SIZE, bytes);
	return 0;
}
