/* SPDX-License-Identifier: Apache-2.0 */

/* The requests: each is connect, send, serve notifications, read the response, close. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "internal.h"

struct action {
	criu_opts *opts;
	struct conn conn;
	struct timespec start;
	uint8_t *buf;	  /* what resp points into */
	struct response resp;
	int err; /* what errno will be: the peer's cr_errno, or that of a call that failed */
};

static void begin(struct action *a, criu_opts *opts)
{
	memset(a, 0, sizeof(*a));
	a->opts = opts;
	a->conn.fd = -1;
	a->conn.child = -1;
	a->conn.child_status = -1;
	/* The clock that files are stamped by. */
	clock_gettime(CLOCK_REALTIME_COARSE, &a->start);
	errtext_clear(opts);
}

/* Keeps errno of a failed call. */
static int failed(struct action *a, int ret)
{
	a->err = errno;
	return ret;
}

static int open_conn(struct action *a, enum criu_service_comm comm, const char *path, bool self_dump)
{
	int ret = conn_open(a->opts, comm, path, self_dump, &a->conn);

	return ret ? failed(a, ret) : 0;
}

static int connect_peer(struct action *a)
{
	/* criu_check() is allowed before there are options. */
	if (!a->opts)
		return open_conn(a, CRIU_COMM_BIN, NULL, false);
	return open_conn(a, a->opts->comm, a->opts->service_path, false);
}

static bool keeps_log(enum req_type type)
{
	switch (type) {
	case REQ_DUMP:
	case REQ_RESTORE:
	case REQ_PRE_DUMP:
	case REQ_SINGLE_PRE_DUMP:
	case REQ_PAGE_SERVER:
	case REQ_PAGE_SERVER_CHLD:
	case REQ_CPUINFO_DUMP:
	case REQ_CPUINFO_CHECK:
		return true;
	default:
		return false;
	}
}

/* Ends an action: closes the connection, leaves the result in errno and says what to return. */
static int end(struct action *a, enum req_type type, int ret)
{
	free(a->buf);
	conn_close(&a->conn);
	if (ret == -ECOMM && a->conn.child_status >= 0 && WIFSIGNALED(a->conn.child_status))
		errtext_set(a->opts, "the peer was killed by signal %d", WTERMSIG(a->conn.child_status));
	if ((ret == -EBADE || ret == -ECOMM) && keeps_log(type))
		errtext_log(a->opts, &a->start);
	errno = a->err;
	return ret;
}

static int receive(struct action *a)
{
	size_t len;
	int ret;

	free(a->buf);
	a->buf = NULL;
	ret = conn_recv(a->opts, &a->conn, &a->buf, &len);
	if (ret)
		return failed(a, ret);
	if (!decode_response(a->buf, len, &a->resp)) {
		errtext_set(a->opts, len ? "the response cannot be understood" : "the peer ended the conversation");
		a->err = 0;
		return -ECOMM;
	}
	return 0;
}

static int acknowledge(struct action *a, bool success)
{
	uint8_t tail[2] = { 3 << 3 | WIRE_VARINT, success };
	struct request q = { .type = REQ_NOTIFY, .tail = tail, .tail_len = sizeof(tail) };

	if (conn_send(a->opts, &a->conn, &q))
		return failed(a, -ECOMM);
	return 0;
}

/* Passes a notification on. What the callback returns, when it is not 0, is what the action returns. */
static int notify(struct action *a)
{
	criu_opts *o = a->opts;
	criu_notify_arg_t na = &a->resp.notify;
	int ret = 0, sent;

	if (o && o->notify)
		ret = o->notify(na->script, na);
	else if (o && o->notify_data)
		ret = o->notify_data(na->script, na, o->notify_arg);
	if (ret)
		errtext_set(o, "the notification callback refused with %d", ret);
	sent = acknowledge(a, ret == 0);
	return ret ? ret : sent;
}

/* Sends a request and reads its response; answer_type is what the response's type has to be. 0, or the result. */
static int exchange(struct action *a, const struct request *q, enum req_type answer_type)
{
	struct response *r = &a->resp;
	int ret;

	if (conn_send(a->opts, &a->conn, q))
		return failed(a, -ECOMM);
	for (;;) {
		ret = receive(a);
		if (ret)
			return ret;
		if (r->type != REQ_NOTIFY)
			break;
		ret = notify(a);
		if (ret)
			return ret;
	}
	if (r->has_errno)
		a->err = r->cr_errno;
	if (r->type != (int32_t)answer_type) {
		bool unknown = r->type == REQ_EMPTY && !r->success;

		errtext_set(a->opts, unknown ? "the peer does not know this type of request" :
					       "the peer answered another type of request");
		return unknown ? -EINVAL : -EBADMSG;
	}
	if (!r->success) {
		errtext_peer(a->opts, r->errmsg ? r->errmsg : "the peer reported failure without a reason");
		return -EBADE;
	}
	return 0;
}

/* A success that lacks what it has to tell. */
static int incomplete(struct action *a)
{
	errtext_set(a->opts, "the peer's response lacks its content");
	return -EBADMSG;
}

static int no_opts(void)
{
	errno = EINVAL;
	return -EINVAL;
}

/* The actions that send their options and learn no more than whether it worked. */
static int simple(criu_opts *opts, enum req_type type)
{
	struct request q = { .type = type, .opts = opts };
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	ret = connect_peer(&a);
	if (!ret)
		ret = exchange(&a, &q, type);
	return end(&a, type, ret);
}

EXPORT int criu_local_check(criu_opts *opts)
{
	struct request q = { .type = REQ_CHECK };
	struct action a;
	int ret;

	begin(&a, opts);
	ret = connect_peer(&a);
	if (!ret)
		ret = exchange(&a, &q, REQ_CHECK);
	return end(&a, REQ_CHECK, ret);
}

EXPORT int criu_local_dump(criu_opts *opts)
{
	struct request q = { .type = REQ_DUMP, .opts = opts };
	struct action a;
	bool self;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	self = !opts->field[FIELD_PID].len;
	ret = open_conn(&a, opts->comm, opts->service_path, self);
	if (!ret)
		ret = exchange(&a, &q, REQ_DUMP);
	if (!ret && a.resp.restored)
		ret = 1;
	return end(&a, REQ_DUMP, ret);
}

EXPORT int criu_local_pre_dump(criu_opts *opts)
{
	return simple(opts, REQ_SINGLE_PRE_DUMP);
}

static int restore(struct action *a, bool sibling)
{
	struct request q = { .type = REQ_RESTORE, .opts = a->opts, .sibling = sibling };
	int ret = exchange(a, &q, REQ_RESTORE);

	if (ret)
		return ret;
	return a->resp.has_restore ? a->resp.restore_pid : incomplete(a);
}

EXPORT int criu_local_restore(criu_opts *opts)
{
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	ret = connect_peer(&a);
	if (!ret)
		ret = restore(&a, false);
	return end(&a, REQ_RESTORE, ret);
}

EXPORT int criu_local_restore_child(criu_opts *opts)
{
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	/* Only a child of ours can make the restored process our child; a service cannot. */
	ret = open_conn(&a, CRIU_COMM_BIN, opts->comm == CRIU_COMM_BIN ? opts->service_path : NULL, false);
	if (!ret)
		ret = restore(&a, true);
	return end(&a, REQ_RESTORE, ret);
}

EXPORT int criu_local_dump_iters(criu_opts *opts, int (*more)(criu_predump_info pi))
{
	struct request pre = { .type = REQ_PRE_DUMP, .opts = opts }, last = { .type = REQ_DUMP, .opts = opts };
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	if (!more || !opts->field[FIELD_PID].len) {
		errtext_set(opts, more ? "an iterative dump needs a pid" : "an iterative dump needs a callback");
		return end(&a, REQ_DUMP, -EINVAL);
	}
	ret = connect_peer(&a);
	while (!ret) {
		ret = exchange(&a, &pre, REQ_PRE_DUMP);
		if (ret)
			break;
		ret = more(NULL);
		if (ret < 0)
			break;
		if (ret == 0) {
			ret = exchange(&a, &last, REQ_DUMP);
			break;
		}
		ret = 0;
	}
	return end(&a, REQ_DUMP, ret);
}

EXPORT int criu_local_get_version(criu_opts *opts)
{
	struct request q = { .type = REQ_VERSION, .opts = opts };
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	ret = connect_peer(&a);
	if (!ret)
		ret = exchange(&a, &q, REQ_VERSION);
	if (!ret) {
		const struct response *r = &a.resp;
		/* Unsigned: a peer may say anything. */
		unsigned major = (unsigned)r->major * 10000, minor = (unsigned)r->minor;

		if (!r->has_version)
			ret = incomplete(&a);
		else if (r->gitid) /* built between releases: counts as the next one */
			ret = (int)(major + (minor + 1) * 100);
		else
			ret = (int)(major + minor * 100 + (unsigned)r->sublevel);
	}
	return end(&a, REQ_VERSION, ret);
}

EXPORT int criu_local_check_version(criu_opts *opts, int minimum)
{
	int ret = criu_local_get_version(opts);

	return ret < 0 ? ret : minimum <= ret;
}

EXPORT int criu_local_feature_check(criu_opts *opts, struct criu_feature_check *features, size_t size)
{
	_Static_assert(sizeof(struct criu_feature_check) == FEATURES, "a byte for each feature");
	/* As bytes: a bool of the program's that is neither 0 nor 1 may not be read as one. */
	uint8_t has[FEATURES] = { 0 };
	uint8_t tail[2 + 2 * FEATURES] = { 5 << 3 | WIRE_BYTES }, *p = tail + 2;
	struct request q = { .type = REQ_FEATURE_CHECK, .opts = opts, .tail = tail };
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	if (!features || size > FEATURES) {
		errtext_set(opts, features ? "the program knows features that the library does not" :
					     "no features were given");
		return end(&a, REQ_FEATURE_CHECK, -1);
	}
	/* The program's struct may be an older, shorter one. */
	memcpy(has, features, size);
	for (unsigned i = 0; i < FEATURES; i++) {
		if (has[i])
			p = put_varint(put_varint(p, wire_tag(i + 1, WIRE_VARINT)), true);
	}
	tail[1] = (uint8_t)(p - tail - 2);
	q.tail_len = (size_t)(p - tail);
	ret = connect_peer(&a);
	if (!ret)
		ret = exchange(&a, &q, REQ_FEATURE_CHECK);
	if (!ret && !a.resp.has_features)
		ret = incomplete(&a);
	if (!ret) {
		for (unsigned i = 0; i < FEATURES; i++)
			has[i] = a.resp.feature[i];
		memcpy(features, has, size);
	}
	return end(&a, REQ_FEATURE_CHECK, ret);
}

/* Extensions. */

EXPORT int criu_local_cpuinfo_dump(criu_opts *opts)
{
	return simple(opts, REQ_CPUINFO_DUMP);
}

EXPORT int criu_local_cpuinfo_check(criu_opts *opts)
{
	return simple(opts, REQ_CPUINFO_CHECK);
}

/* A peer answers both ways to start a page server with the same type. */
static int page_server(struct action *a, const struct request *q, int *port)
{
	int ret = exchange(a, q, REQ_PAGE_SERVER);

	if (ret)
		return ret;
	if (!a->resp.has_ps)
		return incomplete(a);
	if (port)
		*port = a->resp.ps_port;
	return a->resp.ps_pid;
}

EXPORT int criu_local_page_server(criu_opts *opts, int *port)
{
	struct request q = { .type = REQ_PAGE_SERVER, .opts = opts };
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	ret = connect_peer(&a);
	if (!ret)
		ret = page_server(&a, &q, port);
	return end(&a, REQ_PAGE_SERVER, ret);
}

EXPORT int criu_local_page_server_child(criu_opts *opts, int *port)
{
	static const uint8_t keep_open[] = { 4 << 3 | WIRE_VARINT, 1 };
	struct request q = {
		.type = REQ_PAGE_SERVER_CHLD, .opts = opts, .tail = keep_open, .tail_len = sizeof(keep_open)
	};
	struct action a;
	int ret;

	if (!opts)
		return no_opts();
	conn_close(&opts->kept);
	begin(&a, opts);
	ret = connect_peer(&a);
	if (!ret)
		ret = page_server(&a, &q, port);
	if (ret > 0) {
		/* Only this conversation's peer can wait for its child. */
		opts->kept = a.conn;
		a.conn.fd = -1;
		a.conn.child = -1;
	}
	return end(&a, REQ_PAGE_SERVER_CHLD, ret);
}

EXPORT int criu_local_wait_pid(criu_opts *opts, int pid, int *status)
{
	uint8_t tail[1 + VARINT_MAX] = { 6 << 3 | WIRE_VARINT };
	struct request q = { .type = REQ_WAIT_PID, .tail = tail };
	struct action a;
	int ret = 0;

	if (!opts)
		return no_opts();
	begin(&a, opts);
	q.tail_len = (size_t)(put_varint(tail + 1, (uint32_t)pid) - tail);
	if (opts->kept.fd >= 0) {
		a.conn = opts->kept;
		opts->kept.fd = -1;
		opts->kept.child = -1;
	} else {
		ret = connect_peer(&a);
	}
	if (!ret)
		ret = exchange(&a, &q, REQ_WAIT_PID);
	if (!ret && !a.resp.has_status)
		ret = incomplete(&a);
	if (!ret && status)
		*status = a.resp.status;
	return end(&a, REQ_WAIT_PID, ret);
}
