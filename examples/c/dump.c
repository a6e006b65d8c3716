/* Dumps a process: dump PID DIRECTORY. With -r before, the process goes on running. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criu/criu.h>

int main(int argc, char **argv)
{
	bool leave_running = argc > 1 && !strcmp(argv[1], "-r");
	int dir, ret;

	argv += leave_running;
	argc -= leave_running;
	if (argc != 3) {
		fprintf(stderr, "usage: dump [-r] PID DIRECTORY\n");
		return 2;
	}
	/* CRIU opens the directory through our descriptor, wherever it runs. */
	dir = open(argv[2], O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		perror(argv[2]);
		return 1;
	}
	if (criu_init_opts() < 0)
		return 1;
	criu_set_images_dir_fd(dir);
	criu_set_pid(atoi(argv[1]));
	criu_set_leave_running(leave_running);
	criu_set_log_level(CRIU_LOG_DEBUG);
	criu_set_log_file("dump.log");
	criu_set_shell_job(true); /* for one that has our terminal */

	ret = criu_dump();
	if (ret < 0)
		fprintf(stderr, "dump: %d: %s\n%s\n", ret, criu_get_errmsg(), criu_get_log_error());
	else
		printf("dumped\n");
	criu_free_opts();
	close(dir);
	return ret < 0;
}
