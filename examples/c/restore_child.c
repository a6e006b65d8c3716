/* Restores as a child of this process, and waits for its end: restore_child DIRECTORY. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criu/criu.h>

int main(int argc, char **argv)
{
	criu_opts *opts = NULL; /* an object of our own, as a library would have */
	int dir, pid, status;

	if (argc != 2) {
		fprintf(stderr, "usage: restore_child DIRECTORY\n");
		return 2;
	}
	dir = open(argv[1], O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		perror(argv[1]);
		return 1;
	}
	if (criu_local_init_opts(&opts) < 0)
		return 1;
	criu_local_set_images_dir_fd(opts, dir);
	criu_local_set_log_file(opts, "restore.log");
	criu_local_set_shell_job(opts, true);

	pid = criu_local_restore_child(opts);
	if (pid < 0) {
		fprintf(stderr, "restore: %d: %s\n", pid, criu_local_get_errmsg(opts));
	} else {
		printf("restored %d\n", pid);
		fflush(stdout);
		if (waitpid(pid, &status, 0) == pid && WIFEXITED(status))
			printf("it exited with %d\n", WEXITSTATUS(status));
		else
			printf("it was killed by signal %d\n", WTERMSIG(status));
	}
	criu_local_free_opts(opts);
	close(dir);
	return pid < 0;
}
