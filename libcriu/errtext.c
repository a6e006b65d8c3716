/* SPDX-License-Identifier: Apache-2.0 */

/* The texts behind a return value: what the peer said, what failed here, what the log has. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

/* Without memory for a text there is none; the return value and errno tell what happened all the same. */

void errtext_clear(criu_opts *o)
{
	if (!o)
		return;
	free(o->errmsg);
	free(o->log_error);
	o->errmsg = NULL;
	o->log_error = NULL;
}

void errtext_set(criu_opts *o, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (!o)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	errtext_peer(o, text);
}

void errtext_peer(criu_opts *o, const char *text)
{
	if (!o)
		return;
	free(o->errmsg);
	o->errmsg = strndup(text, strcspn(text, "\n"));
}

EXPORT const char *criu_local_get_errmsg(criu_opts *opts)
{
	return opts && opts->errmsg ? opts->errmsg : "";
}

EXPORT const char *criu_local_get_log_error(criu_opts *opts)
{
	return opts && opts->log_error ? opts->log_error : "";
}

/* Reading is bounded: a log at full verbosity may be large, and this is only help. */
#define LOG_CHUNK 4096
#define LOG_MAX	  (64UL << 20)

/* Whether a log line tells an error; CRIU's look like "(00.012345) [pid: ]Error (where): what". */
static bool is_error(const char *line)
{
	return strstr(line, "Error (") != NULL;
}

static char *first_error(int fd)
{
	char *chunk = malloc(LOG_CHUNK + 1), *found = NULL;
	size_t have = 0, total = 0;
	bool tail = false; /* the chunk begins inside a line that was too long for it */
	ssize_t n;

	if (!chunk)
		return NULL;
	while (!found && total < LOG_MAX && (n = read(fd, chunk + have, LOG_CHUNK - have)) > 0) {
		char *line = chunk, *end;

		total += (size_t)n;
		have += (size_t)n;
		chunk[have] = '\0';
		while (!found && (end = memchr(line, '\n', have - (size_t)(line - chunk)))) {
			*end = '\0';
			if (!tail && is_error(line))
				found = strdup(line);
			tail = false;
			line = end + 1;
		}
		have -= (size_t)(line - chunk);
		if (have == LOG_CHUNK) {
			if (!tail && !found && is_error(line))
				found = strdup(line);
			tail = true;
			have = 0;
		}
		memmove(chunk, line, have);
	}
	free(chunk);
	return found;
}

/* The path in the field num, which starts with its tag and length. NULL: not set, or too long for a name. */
static const char *opt_path(const criu_opts *o, unsigned num, char *buf, size_t size)
{
	const struct field *f = &o->field[num];
	const uint8_t *p = field_bytes(f), *end = p + f->len;
	size_t len;

	if (!f->len)
		return NULL;
	p += varint_size(wire_tag(num, WIRE_BYTES));
	while (*p++ & 0x80)
		;
	len = (size_t)(end - p);
	if (len >= size)
		return NULL;
	memcpy(buf, p, len);
	buf[len] = '\0';
	return buf;
}

/* Finds the log of a request that was sent at since and failed, and keeps its first error line. */
void errtext_log(criu_opts *o, const struct timespec *since)
{
	char name[256];
	const char *file;
	struct stat st;
	int dir, fd;

	if (!o)
		return;
	dir = (int)opt_int(o, FIELD_WORK_DIR_FD, -1);
	if (dir < 0)
		dir = (int)opt_int(o, FIELD_IMAGES_DIR_FD, -1);
	if (dir < 0)
		return;
	file = o->field[FIELD_LOG_FILE].len ? opt_path(o, FIELD_LOG_FILE, name, sizeof(name)) : "criu.log";
	if (!file || strchr(file, '/'))
		return;
	fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return;
	/* What was there before is some other request's. */
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) &&
	    (st.st_mtim.tv_sec > since->tv_sec ||
	     (st.st_mtim.tv_sec == since->tv_sec && st.st_mtim.tv_nsec >= since->tv_nsec))) {
		free(o->log_error);
		o->log_error = first_error(fd);
	}
	close(fd);
}
