/*
 * pty: a session leader whose standard input, output and error are a terminal that another process holds the other end
 * of. It sets up the terminal's modes and size and, asked, checks them, and that the terminal is its own.
 * Its lines go to VICTIM_OUTPUT; to the terminal it writes "hello", and after the verdict was asked for "goodbye".
 */
#include "victim.h"
#include <sys/ioctl.h>
#include <termios.h>

int main(int argc, char **argv)
{
	struct winsize size = { .ws_row = 37, .ws_col = 119 }, size_now;
	struct termios modes, modes_now;

	victim_init(argc, argv);
	if (victim_output == STDOUT_FILENO)
		victim_die("VICTIM_OUTPUT is not set");
	if (getsid(0) != getpid())
		victim_die("leads no session");
	if (!isatty(0) || !isatty(1) || !isatty(2))
		victim_die("standard input, output and error are no terminal");
	if (tcgetsid(0) != getpid() && ioctl(0, TIOCSCTTY, 0))
		victim_die("TIOCSCTTY");
	if (tcgetattr(0, &modes))
		victim_die("tcgetattr");
	modes.c_lflag &= ~(ICANON | ECHO);
	modes.c_oflag &= ~OPOST;
	modes.c_cc[VMIN] = 3;
	modes.c_cc[VINTR] = 'Z' - '@';
	if (tcsetattr(0, TCSANOW, &modes) || ioctl(0, TIOCSWINSZ, &size))
		victim_die("the terminal's modes and size");
	if (write(1, "hello", 5) != 5)
		victim_die("write to the terminal");

	victim_ready();
	if (sabotage)
		ioctl(0, TIOCSWINSZ, &(struct winsize){ .ws_row = 24, .ws_col = 80 });
	victim_wait();

	if (!isatty(0) || tcgetsid(0) != getpid() || tcgetpgrp(0) != getpgrp())
		victim_fail("the terminal is not the session's any more");
	if (tcgetattr(0, &modes_now) || modes_now.c_lflag != modes.c_lflag || modes_now.c_oflag != modes.c_oflag ||
	    modes_now.c_cc[VMIN] != 3 || modes_now.c_cc[VINTR] != 'Z' - '@')
		victim_fail("the terminal's modes have changed");
	if (ioctl(0, TIOCGWINSZ, &size_now) || size_now.ws_row != size.ws_row || size_now.ws_col != size.ws_col)
		victim_fail("the terminal's size has changed to %d x %d", size_now.ws_row, size_now.ws_col);
	if (write(1, "goodbye", 7) != 7)
		victim_fail("write to the terminal: %s", strerror(errno));
	victim_ok();
}
