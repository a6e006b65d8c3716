/* SPDX-License-Identifier: Apache-2.0 */

/* Reaching a peer, sending it a request, receiving its answer. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

#define DEFAULT_ADDRESS "./criu_service.socket"
#define DEFAULT_BINARY	"criu"

/* CRIU's responses are some hundred bytes; a peer cannot make us take memory without bounds. */
#define RESPONSE_MAX (1 << 20)

/* The last descriptor that came with a message, for criu_get_orphan_pts_master_fd(). */
static _Atomic int last_orphan_fd = -1;

EXPORT int criu_get_orphan_pts_master_fd(void)
{
	return last_orphan_fd;
}

EXPORT int criu_local_get_orphan_pts_master_fd(criu_opts *opts)
{
	return opts ? opts->orphan_pts_master_fd : -1;
}

static int wait_child(pid_t pid)
{
	int status, rc;

	do {
		rc = waitpid(pid, &status, 0);
	} while (rc < 0 && errno == EINTR);
	/* ECHILD: the program ignores SIGCHLD, or waits for any child in another thread. */
	return rc == pid ? status : -1;
}

/* A signal handler of the program must not run in a child that shares the program's memory. */
static void drop_handlers(void)
{
	struct sigaction sa, dfl = { .sa_handler = SIG_DFL };

	for (int sig = 1; sig < NSIG; sig++)
		if (!sigaction(sig, NULL, &sa) && sa.sa_handler != SIG_DFL && sa.sa_handler != SIG_IGN)
			sigaction(sig, &dfl, NULL);
}

struct spawn {
	char *argv[4];
	int sock;
	sigset_t mask;
	volatile int err; /* written by the child, which shares our memory until it execs */
};

/* In the child: becomes the peer. The mask is the program's own, but SIGCHLD is open, which CRIU needs. */
static void become_peer(struct spawn *s)
{
	drop_handlers();
	pthread_sigmask(SIG_SETMASK, &s->mask, NULL);
	fcntl(s->sock, F_SETFD, 0);
	execvp(s->argv[0], s->argv);
	s->err = errno;
	_exit(1);
}

/*
 * Starts the peer as a child, or with detach as nobody's child. vfork(), because the program may be large, limited in
 * address space, or have fork handlers that are none of our business; signals are blocked meanwhile, as a child must
 * not run handlers and the parent must not leave by longjmp().
 *
 * A process that dumps itself is dumped with its children. The peer must then not be among them, and neither may what
 * is left of its starter: a middle process starts it, ends and is waited for here. The kernel gives the peer to the
 * nearest child subreaper, which may be this very process; so it is none for that moment.
 */
static pid_t spawn_peer(struct spawn *s, bool detach)
{
	sigset_t all, old;
	volatile int reaper = 0;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	s->mask = old;
	sigdelset(&s->mask, SIGCHLD);
	s->err = 0;

	if (detach) {
		int now = 0;

		if (!prctl(PR_GET_CHILD_SUBREAPER, &now) && now && !prctl(PR_SET_CHILD_SUBREAPER, 0))
			reaper = now;
	}
	/* The analyzer allows no more than exec and _exit; what is called here leaves the parent's frames alone. */
	/* NOLINTBEGIN(clang-analyzer-unix.Vfork,clang-analyzer-security.insecureAPI.vfork) */
	pid = vfork();
	if (pid == 0) {
		if (detach) {
			pid_t peer = vfork();

			if (peer == 0) {
				setsid();
				become_peer(s);
			}
			if (peer < 0)
				s->err = errno;
			_exit(0);
		}
		become_peer(s);
	}
	/* NOLINTEND(clang-analyzer-unix.Vfork,clang-analyzer-security.insecureAPI.vfork) */
	if (pid < 0)
		s->err = errno;
	else if (detach)
		wait_child(pid);
	if (reaper)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return pid;
}

static char *decimal(char *end, unsigned v)
{
	*--end = '\0';
	do {
		*--end = (char)('0' + v % 10);
	} while (v /= 10);
	return end;
}

static int open_binary(criu_opts *o, const char *path, bool self_dump, struct conn *c)
{
	char number[12], verb[] = "swrk";
	struct spawn s;
	int sk[2], err;
	pid_t pid;

	if (!path)
		path = DEFAULT_BINARY;
	/* Made here, not in the child: CRIU takes whom to dump, and whose descriptors it is told, from SO_PEERCRED. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk)) {
		errtext_set(o, "cannot make a socket pair: %m");
		return -ECONNREFUSED;
	}
	s.argv[0] = (char *)path;
	s.argv[1] = verb;
	s.argv[2] = decimal(number + sizeof(number), (unsigned)sk[1]);
	s.argv[3] = NULL;
	s.sock = sk[1];
	pid = spawn_peer(&s, self_dump);
	err = s.err;
	close(sk[1]);
	if (pid > 0 && !err) {
		c->fd = sk[0];
		c->child = self_dump ? -1 : pid;
		return 0;
	}
	close(sk[0]);
	if (pid > 0 && !self_dump)
		wait_child(pid);
	errno = err;
	errtext_set(o, pid > 0 ? "cannot run %s: %m" : "cannot start %s: %m", path);
	errno = err;
	/* The documentation would have one value for both; programs have always seen this one for the first. */
	return pid > 0 ? -ECOMM : -ECONNREFUSED;
}

static int open_socket(criu_opts *o, const char *path, struct conn *c)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t len;
	int fd, rc, err;

	if (!path)
		path = DEFAULT_ADDRESS;
	len = strlen(path);
	if (len >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		errtext_set(o, "cannot connect to %s: %m", path);
		errno = ENAMETOOLONG;
		return -ECONNREFUSED;
	}
	memcpy(addr.sun_path, path, len);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		do {
			rc = connect(fd, (struct sockaddr *)&addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
		} while (rc && errno == EINTR);
		if (!rc) {
			c->fd = fd;
			return 0;
		}
	}
	err = errno;
	if (fd >= 0)
		close(fd);
	errno = err;
	errtext_set(o, "cannot connect to %s: %m", path);
	errno = err;
	return -ECONNREFUSED;
}

/* The caller's descriptor serves one action, which closes it; its number may then be anybody's. */
static int take_fd(criu_opts *o, struct conn *c)
{
	int fd = o->service_fd;

	if (fd == FD_USED) {
		errtext_set(o, "the service descriptor was used up by an earlier request");
		errno = EBADF;
		return -ECOMM;
	}
	if (fd < 0) {
		errtext_set(o, "no service descriptor was given");
		errno = 0;
		return -ECONNREFUSED;
	}
	o->service_fd = FD_USED;
	c->fd = fd;
	return 0;
}

int conn_open(criu_opts *o, enum criu_service_comm comm, const char *path, bool self_dump, struct conn *c)
{
	c->fd = -1;
	c->child = -1;
	c->child_status = -1;
	switch (comm) {
	case CRIU_COMM_SK:
		return open_socket(o, path, c);
	case CRIU_COMM_FD:
		return take_fd(o, c);
	default:
		return open_binary(o, path, self_dump, c);
	}
}

/* Closes first: a peer that waits for one more request must see the end before its own end is waited for. */
void conn_close(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (c->child > 0)
		c->child_status = wait_child(c->child);
	c->child = -1;
}

/* Sends the request as one packet, gathered from where its fields are. */
int conn_send(criu_opts *o, const struct conn *c, const struct request *q)
{
	static const uint8_t sibling[] = { 0xd0, 0x01, true }; /* the field rst_sibling */
	struct iovec iov[FIELD_MAX + 3];
	uint8_t head[2 + 1 + VARINT_MAX], *p = head;
	struct msghdr msg = { .msg_iov = iov };
	size_t opts_len = 0, n = 1;
	ssize_t rc;

	if (q->opts) {
		for (unsigned i = 1; i <= FIELD_MAX; i++) {
			const struct field *f = &q->opts->field[i];

			if (i == FIELD_RST_SIBLING && q->sibling) {
				iov[n].iov_base = (void *)sibling;
				iov[n].iov_len = sizeof(sibling);
			} else if (f->len) {
				iov[n].iov_base = (void *)field_bytes(f);
				iov[n].iov_len = f->len;
			} else {
				continue;
			}
			opts_len += iov[n++].iov_len;
		}
	}
	p = put_varint(put_varint(p, wire_tag(1, WIRE_VARINT)), q->type);
	if (q->opts)
		p = put_varint(put_varint(p, wire_tag(2, WIRE_BYTES)), opts_len);
	iov[0].iov_base = head;
	iov[0].iov_len = (size_t)(p - head);
	if (q->tail_len) {
		iov[n].iov_base = (void *)q->tail;
		iov[n].iov_len = q->tail_len;
		n++;
	}
	msg.msg_iovlen = n;
	do {
		rc = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
	} while (rc < 0 && errno == EINTR);
	if (rc < 0) {
		int err = errno;

		errtext_set(o, "cannot send the request: %m");
		errno = err;
		return -ECOMM;
	}
	return 0;
}

/* Takes the descriptor that came with a message. It is the program's from now on. */
static int take_rights(criu_opts *o, struct msghdr *msg)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (cmsg) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
			errno = EINVAL;
			return -1;
		}
		if (cmsg->cmsg_len >= CMSG_LEN(sizeof(fd)))
			memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	}
	if (msg->msg_flags & MSG_CTRUNC) {
		if (fd >= 0)
			close(fd);
		errno = ENFILE;
		return -1;
	}
	if (fd >= 0) {
		last_orphan_fd = fd;
		if (o)
			o->orphan_pts_master_fd = fd;
	}
	return 0;
}

/* Receives one packet. *buf is the caller's to free, and has room for one byte more than *len. */
int conn_recv(criu_opts *o, const struct conn *c, uint8_t **buf, size_t *len)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = CMSG_LEN(sizeof(int)), /* CMSG_SPACE would hold a second one */
	};
	int err;
	ssize_t n;

	*buf = NULL;
	do {
		n = recv(c->fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n > RESPONSE_MAX) {
		errno = EMSGSIZE;
		goto fail;
	}
	if (n < 0)
		goto fail;
	*buf = malloc((size_t)n + 1);
	if (!*buf)
		goto fail;
	iov.iov_base = *buf;
	iov.iov_len = (size_t)n;
	do {
		n = recvmsg(c->fd, &msg, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 || take_rights(o, &msg))
		goto fail;
	*len = (size_t)n;
	return 0;
fail:
	err = errno;
	free(*buf);
	*buf = NULL;
	errtext_set(o, "cannot receive the response: %m");
	errno = err;
	return -ECOMM;
}
