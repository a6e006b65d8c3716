/* Restores what dump has written: restore DIRECTORY. The process is nobody's child in particular. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <criu/criu.h>

int main(int argc, char **argv)
{
	int dir, pid;

	if (argc != 2) {
		fprintf(stderr, "usage: restore DIRECTORY\n");
		return 2;
	}
	dir = open(argv[1], O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		perror(argv[1]);
		return 1;
	}
	if (criu_init_opts() < 0)
		return 1;
	criu_set_images_dir_fd(dir);
	criu_set_log_level(CRIU_LOG_DEBUG);
	criu_set_log_file("restore.log");
	criu_set_shell_job(true);

	pid = criu_restore();
	if (pid < 0)
		fprintf(stderr, "restore: %d: %s\n%s\n", pid, criu_get_errmsg(), criu_get_log_error());
	else
		printf("restored %d\n", pid);
	criu_free_opts();
	close(dir);
	return pid < 0;
}
