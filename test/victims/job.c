/*
 * job: what a shell has in the foreground: a process group of its own, which may read from the terminal, and settings of the
 * terminal that are the job's, as an editor has them. The terminal is its standard input, and open as /dev/tty as well.
 *
 * With the argument "moved" it gives the foreground to the leader of its session when it is ready, and wants to be in the
 * foreground when it is asked: as a job is that somebody has restored.
 */
#include "victim.h"
#include <sys/ioctl.h>
#include <termios.h>

int main(int argc, char **argv)
{
	struct winsize size = { .ws_row = 33, .ws_col = 99 }, now = { 0 };
	struct termios raw, settings;
	sigset_t output;
	int tty;

	victim_init(argc, argv);
	sigemptyset(&output);
	sigaddset(&output, SIGTTOU);
	sigprocmask(SIG_BLOCK, &output, NULL);
	setpgid(0, 0); /* a leader of a session is that already */
	tty = open("/dev/tty", O_RDWR);
	if (tty < 0 || getpgrp() != getpid() || tcsetpgrp(0, getpid()) || tcgetattr(0, &raw))
		victim_die("a terminal");
	raw.c_lflag &= ~(ICANON | ECHO);
	raw.c_cc[VINTR] = 'x';
	raw.c_cc[VMIN] = 3;
	raw.c_cc[VERASE] = 0;
	if (tcsetattr(0, TCSANOW, &raw) || tcgetattr(tty, &raw) || ioctl(0, TIOCSWINSZ, &size))
		victim_die("settings of a terminal");
	if (victim_argc > 1 && !strcmp(victim_argv[1], "moved") && tcsetpgrp(0, getsid(0)))
		victim_die("the foreground");

	victim_ready();
	if (sabotage) {
		settings = raw;
		settings.c_cc[VMIN] = 1;
		tcsetattr(0, TCSANOW, &settings);
	}
	victim_wait();

	if (tcgetpgrp(0) != getpid() || tcgetpgrp(tty) != getpid())
		victim_fail("in the foreground are %d and, by /dev/tty, %d, not %d", tcgetpgrp(0), tcgetpgrp(tty), getpid());
	if (tcgetattr(tty, &settings))
		victim_fail("/dev/tty: %s", strerror(errno));
	if (settings.c_lflag != raw.c_lflag || settings.c_iflag != raw.c_iflag || settings.c_oflag != raw.c_oflag ||
	    settings.c_cflag != raw.c_cflag || memcmp(settings.c_cc, raw.c_cc, VEOL2 + 1))
		victim_fail("the terminal has other settings: %#x, VINTR %d, VMIN %d", settings.c_lflag, settings.c_cc[VINTR], settings.c_cc[VMIN]);
	if (ioctl(0, TIOCGWINSZ, &now) || now.ws_row != size.ws_row || now.ws_col != size.ws_col)
		victim_fail("the terminal has %d rows and %d columns", now.ws_row, now.ws_col);
	victim_ok();
}
