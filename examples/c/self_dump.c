/*
 * Dumps itself: self_dump DIRECTORY FILE, and writes to FILE what it lives through. criu_dump() comes back twice: with
 * 0 in the process that goes on, with 1 in the one that is restored later (by restore_child, say).
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <criu/criu.h>

int main(int argc, char **argv)
{
	int dir, out, ret;

	if (argc != 3) {
		fprintf(stderr, "usage: self_dump DIRECTORY FILE\n");
		return 2;
	}
	dir = open(argv[1], O_DIRECTORY | O_CLOEXEC);
	out = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (dir < 0 || out < 0) {
		perror("open");
		return 1;
	}
	/* Nothing of the terminal's is dumped with us. */
	setsid();
	for (int fd = 0; fd < 3; fd++) {
		close(fd);
		if (open("/dev/null", O_RDWR) != fd)
			return 1;
	}
	if (criu_init_opts() < 0)
		return 1;
	/* No pid is set: it is we who are dumped. No notifications either, as one that is frozen cannot answer. */
	criu_set_images_dir_fd(dir);
	criu_set_log_file("dump.log");
	criu_set_leave_running(true);

	dprintf(out, "before\n");
	ret = criu_dump();
	if (ret < 0)
		dprintf(out, "not dumped: %d %s\n", ret, criu_get_errmsg());
	else
		dprintf(out, ret == 1 ? "restored\n" : "dumped\n");
	criu_free_opts();
	return ret == 1 ? 3 : ret < 0;
}
