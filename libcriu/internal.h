/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the parts of the library share.
 *
 *	wire.c      the decoder of responses; no system call
 *	opts.c      the options object and the setters that are more than a table row
 *	setters.c   all other setters, generated from internal/rpctable
 *	conn.c      reaching a peer, sending to it, receiving from it
 *	action.c    the requests
 *	errtext.c   the texts behind a return value
 */
#ifndef STASIS_LIBCRIU_INTERNAL_H
#define STASIS_LIBCRIU_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "criu.h"
#include "fields.h"

#define EXPORT __attribute__((visibility("default")))

/* Longest varint, and longest tag of a field of criu_opts with one. */
#define VARINT_MAX 10
#define SCALAR_MAX (2 + VARINT_MAX)

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* The request types that are used here, by their numbers in the protocol. */
enum req_type {
	REQ_EMPTY = 0,
	REQ_DUMP = 1,
	REQ_RESTORE = 2,
	REQ_CHECK = 3,
	REQ_PRE_DUMP = 4,
	REQ_PAGE_SERVER = 5,
	REQ_NOTIFY = 6,
	REQ_CPUINFO_DUMP = 7,
	REQ_CPUINFO_CHECK = 8,
	REQ_FEATURE_CHECK = 9,
	REQ_VERSION = 10,
	REQ_WAIT_PID = 11,
	REQ_PAGE_SERVER_CHLD = 12,
	REQ_SINGLE_PRE_DUMP = 13,
};

/*
 * One field of criu_opts as it goes on the wire, tag included: nothing where the option is not set, several
 * elements one after the other where it is repeated. Numbers and booleans always fit inline (cap is 0).
 */
struct field {
	uint32_t len;
	uint32_t cap;
	union {
		uint8_t inl[SCALAR_MAX];
		uint8_t *heap;
	};
};

/* A connection to a peer. child is the peer itself where it is a child of ours that has to be waited for. */
struct conn {
	int fd;
	pid_t child;
	int child_status; /* wait status, or -1 */
};

struct criu_opts {
	struct field field[FIELD_MAX + 1]; /* by number; a request's opts are all of them in this order */

	enum criu_service_comm comm;
	char *service_path; /* address or binary; NULL stands for the default */
	int service_fd;     /* FD_USED once an action has closed it */

	int (*notify)(char *action, criu_notify_arg_t na);
	int (*notify_data)(char *action, criu_notify_arg_t na, void *data);
	void *notify_arg;

	int orphan_pts_master_fd;
	struct conn kept; /* where criu_wait_pid() will ask; fd is -1 when there is none */

	char *errmsg;
	char *log_error;
};

#define FD_USED (-2)

/* The object behind the functions without _local: the global API is one shared object by definition. */
extern criu_opts *criu_global_opts __attribute__((visibility("hidden")));

/* Most of what is encoded is a tag or a length of one byte. */
static inline size_t varint_size(uint64_t v)
{
	size_t n = 1;

	for (; v >= 0x80; v >>= 7)
		n++;
	return n;
}

static inline uint8_t *put_varint(uint8_t *p, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)v | 0x80;
	*p++ = (uint8_t)v;
	return p;
}

static inline uint32_t wire_tag(unsigned num, enum wire_type type)
{
	return num << 3 | type;
}

/* wire.c */

/* Features, in the order of struct criu_feature_check. */
#define FEATURES 4

/*
 * A decoded response. Strings point into the decoded buffer, NUL-terminated there; they are NULL where the field is
 * absent. has_x for a message or number says that it was there.
 */
struct response {
	int32_t type;
	bool success;
	bool has_dump, restored;
	bool has_restore;
	int32_t restore_pid;
	struct CriuNotify notify;
	bool has_ps, has_ps_port;
	int32_t ps_pid, ps_port;
	bool has_errno;
	int32_t cr_errno;
	bool has_features, feature[FEATURES];
	char *errmsg;
	bool has_version;
	int32_t major, minor, sublevel;
	char *gitid;
	bool has_status;
	int32_t status;
};

/* Decodes len bytes at buf, which must have room for one more; writes NULs into it. False: not a criu_resp. */
bool decode_response(uint8_t *buf, size_t len, struct response *r);

/* Exported by libcriu since ever, and declared by no header of it. */
extern const char *criu_lib_version;
void criu_free_service(criu_opts *opts);

/* opts.c: what setters are made of. All are no-ops, or return an error, for NULL opts. */
void opt_varint(criu_opts *o, unsigned num, uint64_t v);
int opt_string(criu_opts *o, unsigned num, const char *s, bool append);
int64_t opt_int(const criu_opts *o, unsigned num, int64_t absent);

static inline const uint8_t *field_bytes(const struct field *f)
{
	return f->cap ? f->heap : f->inl;
}

/* conn.c: 0, or the negative result that the action returns, with errno set and the reason in opts. */
int conn_open(criu_opts *o, enum criu_service_comm comm, const char *path, bool self_dump, struct conn *c);
void conn_close(struct conn *c);

struct request {
	enum req_type type;
	const criu_opts *opts; /* NULL: none are sent */
	bool sibling;	       /* with rst_sibling, which no setter sets */
	const uint8_t *tail;   /* encoded fields behind opts */
	size_t tail_len;
};

int conn_send(criu_opts *o, const struct conn *c, const struct request *q);
int conn_recv(criu_opts *o, const struct conn *c, uint8_t **buf, size_t *len);

/* errtext.c */
void errtext_clear(criu_opts *o);
void errtext_set(criu_opts *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void errtext_peer(criu_opts *o, const char *text);
void errtext_log(criu_opts *o, const struct timespec *since);

#endif
