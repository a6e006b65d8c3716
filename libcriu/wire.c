/* SPDX-License-Identifier: Apache-2.0 */

/* Responses: protocol buffers, as much of them as CRIU's RPC needs. No allocation, no system call. */
#include <string.h>

#include "internal.h"

/* What is left to decode. */
struct reader {
	uint8_t *p, *end;
};

/* One field: a number in v, or bytes with their length in v. */
struct wire_field {
	uint32_t num;
	uint32_t type;
	uint64_t v;
	uint8_t *bytes;
};

static bool get_varint(struct reader *r, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0; shift < 7 * VARINT_MAX; shift += 7) {
		uint8_t b;

		if (r->p == r->end)
			return false;
		b = *r->p++;
		*v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return true;
	}
	return false;
}

/* Reads the next field; the caller has seen that there is one. False: malformed. */
static bool get_field(struct reader *r, struct wire_field *f)
{
	uint64_t tag;
	size_t left;

	if (!get_varint(r, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
		return false;
	f->num = (uint32_t)(tag >> 3);
	f->type = tag & 7;
	f->bytes = NULL;
	if (f->type == WIRE_VARINT)
		return get_varint(r, &f->v);

	switch (f->type) {
	case WIRE_BYTES:
		if (!get_varint(r, &f->v))
			return false;
		break;
	case WIRE_FIXED64:
		f->v = 8;
		break;
	case WIRE_FIXED32:
		f->v = 4;
		break;
	default: /* groups are not used, other types do not exist */
		return false;
	}
	left = (size_t)(r->end - r->p);
	if (f->v > left)
		return false;
	f->bytes = r->p;
	r->p += f->v;
	return true;
}

static bool as_int32(const struct wire_field *f, int32_t *v)
{
	if (f->type != WIRE_VARINT)
		return false;
	*v = (int32_t)(uint32_t)f->v;
	return true;
}

static bool as_bool(const struct wire_field *f, bool *v)
{
	if (f->type != WIRE_VARINT)
		return false;
	*v = f->v != 0;
	return true;
}

static bool as_message(const struct wire_field *f, struct reader *sub)
{
	if (f->type != WIRE_BYTES)
		return false;
	sub->p = f->bytes;
	sub->end = f->bytes + f->v;
	return true;
}

/*
 * A string is used where it stands. Its NUL overwrites the byte behind it, which is the tag of the next field or the
 * end of the buffer, so it is written last, by terminate().
 */
struct text {
	uint8_t *start, *end;
};

static bool as_text(const struct wire_field *f, struct text *t)
{
	if (f->type != WIRE_BYTES)
		return false;
	t->start = f->bytes;
	t->end = f->bytes + f->v;
	return true;
}

static char *terminate(const struct text *t)
{
	if (!t->start)
		return NULL;
	*t->end = '\0';
	return (char *)t->start;
}

struct texts {
	struct text script, errmsg, gitid;
};

static bool decode_dump(struct reader m, struct response *r)
{
	struct wire_field f;

	while (m.p != m.end) {
		if (!get_field(&m, &f))
			return false;
		if (f.num == 1 && !as_bool(&f, &r->restored))
			return false;
	}
	r->has_dump = true;
	return true;
}

static bool decode_restore(struct reader m, struct response *r)
{
	struct wire_field f;
	bool pid = false;

	while (m.p != m.end) {
		if (!get_field(&m, &f))
			return false;
		if (f.num == 1) {
			if (!as_int32(&f, &r->restore_pid))
				return false;
			pid = true;
		}
	}
	r->has_restore = true;
	return pid;
}

static bool decode_notify(struct reader m, struct response *r, struct texts *t)
{
	struct wire_field f;

	while (m.p != m.end) {
		bool ok = true;

		if (!get_field(&m, &f))
			return false;
		if (f.num == 1) {
			ok = as_text(&f, &t->script);
		} else if (f.num == 2) {
			ok = as_int32(&f, &r->notify.pid);
			r->notify.has_pid = 1;
		}
		if (!ok)
			return false;
	}
	return true;
}

static bool decode_ps(struct reader m, struct response *r)
{
	struct wire_field f;
	struct text address;
	int32_t fd;

	while (m.p != m.end) {
		bool ok = true;

		if (!get_field(&m, &f))
			return false;
		switch (f.num) {
		case 1:
			ok = as_text(&f, &address);
			break;
		case 2:
			ok = as_int32(&f, &r->ps_port);
			r->has_ps_port = true;
			break;
		case 3:
			ok = as_int32(&f, &r->ps_pid);
			break;
		case 4:
			ok = as_int32(&f, &fd);
			break;
		}
		if (!ok)
			return false;
	}
	r->has_ps = true;
	return true;
}

static bool decode_features(struct reader m, struct response *r)
{
	struct wire_field f;

	while (m.p != m.end) {
		if (!get_field(&m, &f))
			return false;
		if (f.num <= FEATURES && !as_bool(&f, &r->feature[f.num - 1]))
			return false;
	}
	r->has_features = true;
	return true;
}

static bool decode_version(struct reader m, struct response *r, struct texts *t)
{
	struct wire_field f;
	bool major = false, minor = false;
	struct text name;
	int32_t extra;

	while (m.p != m.end) {
		bool ok = true;

		if (!get_field(&m, &f))
			return false;
		switch (f.num) {
		case 1:
			ok = major = as_int32(&f, &r->major);
			break;
		case 2:
			ok = minor = as_int32(&f, &r->minor);
			break;
		case 3:
			ok = as_text(&f, &t->gitid);
			break;
		case 4:
			ok = as_int32(&f, &r->sublevel);
			break;
		case 5:
			ok = as_int32(&f, &extra);
			break;
		case 6:
			ok = as_text(&f, &name);
			break;
		}
		if (!ok)
			return false;
	}
	r->has_version = true;
	return major && minor;
}

bool decode_response(uint8_t *buf, size_t len, struct response *r)
{
	struct reader in = { buf, buf + len }, m;
	bool type = false, success = false;
	struct wire_field f;
	struct texts t;

	memset(r, 0, sizeof(*r));
	memset(&t, 0, sizeof(t));
	while (in.p != in.end) {
		bool ok = true;

		if (!get_field(&in, &f))
			return false;
		switch (f.num) {
		case 1:
			ok = type = as_int32(&f, &r->type);
			break;
		case 2:
			ok = success = as_bool(&f, &r->success);
			break;
		case 3:
			ok = as_message(&f, &m) && decode_dump(m, r);
			break;
		case 4:
			ok = as_message(&f, &m) && decode_restore(m, r);
			break;
		case 5:
			ok = as_message(&f, &m) && decode_notify(m, r, &t);
			break;
		case 6:
			ok = as_message(&f, &m) && decode_ps(m, r);
			break;
		case 7:
			ok = r->has_errno = as_int32(&f, &r->cr_errno);
			break;
		case 8:
			ok = as_message(&f, &m) && decode_features(m, r);
			break;
		case 9:
			ok = as_text(&f, &t.errmsg);
			break;
		case 10:
			ok = as_message(&f, &m) && decode_version(m, r, &t);
			break;
		case 11:
			ok = r->has_status = as_int32(&f, &r->status);
			break;
		}
		if (!ok)
			return false;
	}
	r->notify.script = terminate(&t.script);
	r->errmsg = terminate(&t.errmsg);
	r->gitid = terminate(&t.gitid);
	return type && success;
}
