/*
 * Dumps a process and is told of each stage: notify PID DIRECTORY. A callback that returns anything but 0 ends the dump,
 * and the process goes on as if nothing had been.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criu/criu.h>

struct progress {
	int stages;
	const char *stop_at;
};

static int on_stage(char *action, criu_notify_arg_t na, void *data)
{
	struct progress *p = data;

	printf("%d: %s, pid %d\n", ++p->stages, action, criu_notify_pid(na));
	return p->stop_at && !strcmp(action, p->stop_at) ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct progress progress = { 0, argc > 3 ? argv[3] : NULL };
	int dir, ret;

	if (argc < 3) {
		fprintf(stderr, "usage: notify PID DIRECTORY [STAGE-TO-STOP-AT]\n");
		return 2;
	}
	dir = open(argv[2], O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		perror(argv[2]);
		return 1;
	}
	if (criu_init_opts() < 0)
		return 1;
	criu_set_images_dir_fd(dir);
	criu_set_pid(atoi(argv[1]));
	criu_set_shell_job(true);
	criu_set_leave_running(true);
	/* An extension; criu_set_notify_cb() is the same without the pointer. */
	criu_set_notify_cb_data(on_stage, &progress);

	ret = criu_dump();
	printf("dump: %d after %d stages%s%s\n", ret, progress.stages, ret ? ": " : "", criu_get_errmsg());
	criu_free_opts();
	close(dir);
	return ret < 0;
}
