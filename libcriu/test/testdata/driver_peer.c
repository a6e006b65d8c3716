/* SPDX-License-Identifier: Apache-2.0 */

/* The peer: what a service, or a service binary, is to the library. driver.c says what its script is. */
#include "driver.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static FILE *peer_log;

static size_t unhex(const char *s, unsigned char *out)
{
	size_t n = 0;
	unsigned v;

	for (; sscanf(s, "%2x", &v) == 1 && s[0] != ' '; s += 2)
		out[n++] = (unsigned char)v;
	return n;
}

static int peer_record(int fd)
{
	static unsigned char buf[1 << 20];
	ssize_t n = recv(fd, buf, sizeof(buf), 0);

	if (n <= 0)
		return 0;
	fprintf(peer_log, "  req ");
	for (ssize_t i = 0; i < n; i++)
		fprintf(peer_log, "%02x", buf[i]);
	fprintf(peer_log, "\n");
	return 1;
}

static void peer_send(int fd, const char *hex, int nfds)
{
	static unsigned char buf[1 << 17];
	union {
		char space[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { buf, unhex(hex, buf) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[2] = { -1, -1 };

	if (nfds) {
		struct cmsghdr *c;

		fds[0] = open("/dev/null", O_RDWR);
		fds[1] = open("/dev/zero", O_RDWR);
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	sendmsg(fd, &msg, MSG_NOSIGNAL);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void peer_play(int fd, const char *script)
{
	struct pollfd pfd = { fd, POLLIN, 0 };

	for (const char *s = script; s && *s; s = strchr(s, ' ') ? strchr(s, ' ') + 1 : NULL) {
		switch (*s) {
		case 'r':
			peer_record(fd);
			break;
		case 's':
			peer_send(fd, s + 2, 0);
			break;
		case 'f':
			peer_send(fd, s + 2, 1);
			break;
		case 'F':
			peer_send(fd, s + 2, 2);
			break;
		case 'p':
			poll(&pfd, 1, -1);
			break;
		case 't':
			poll(NULL, 0, 150);
			break;
		case 'w':
			while (peer_record(fd))
				;
			break;
		case 'k':
			fclose(peer_log);
			kill(getpid(), SIGKILL);
			break;
		case 'x':
			fclose(peer_log);
			_exit(0);
		}
	}
}

int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = -3; /* ., .. and the directory itself */

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Plays the peer of a case, in a child, to its end. */
void peer_run(int fd, const char *script)
{
	peer_log = fopen(log_path, "ae");
	peer_play(fd, script);
	fclose(peer_log);
	_exit(0);
}

/* What "driver swrk FD" does. */
int peer_main(char **argv)
{
	char cwd[PATH_MAX] = "?";
	sigset_t mask;

	if (getenv("PEER_PARENT") && getppid() == atoi(getenv("PEER_PARENT")))
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* of a caller that hangs */
	peer_log = fopen(getenv("PEER_LOG"), "ae");
	setvbuf(peer_log, NULL, _IOLBF, 0);
	if (getenv("PEER_TELL")) {
		int fds = count_fds() - 1; /* the log */

		sigprocmask(SIG_BLOCK, NULL, &mask);
		if (!getcwd(cwd, sizeof(cwd)))
			cwd[0] = '?';
		fprintf(peer_log, "  peer argv0=%s verb=%s parent=%s leader=%d\n", strrchr(argv[0], '/') ? "path" : argv[0], argv[1],
			getppid() == atoi(getenv("PEER_PARENT")) ? "caller" : "other", getsid(0) == getpid());
		fprintf(peer_log, "  peer SIGCHLD blocked=%d SIGUSR1 blocked=%d SIGUSR2 ignored=%d\n",
			sigismember(&mask, SIGCHLD), sigismember(&mask, SIGUSR1), signal(SIGUSR2, SIG_DFL) == SIG_IGN);
		fprintf(peer_log, "  peer cwd %s\n", strcmp(cwd, getenv("PEER_CWD")) ? "other" : "of the caller");
		fprintf(peer_log, "  peer descriptors %+d\n", fds - atoi(getenv("PEER_FDS")));
	}
	peer_play(atoi(argv[2]), getenv("PEER_SCRIPT"));
	fclose(peer_log);
	return 0;
}
