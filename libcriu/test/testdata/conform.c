/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One operation, for the conformance suite: conform PEER OPERATION [WORD=VALUE...]
 *
 * PEER is as in real.c. Prints "RET ERRNO", then what the operation tells, then the texts, each on a line of its own.
 */
#include <criu/criu.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *value(const char *arg, const char *name)
{
	size_t n = strlen(name);

	return strncmp(arg, name, n) || arg[n] != '=' ? NULL : arg + n + 1;
}

int main(int argc, char **argv)
{
	struct criu_feature_check f = { true, true, true, true };
	const char *v, *op = argv[2];
	int ret, err;

	if (argc < 3 || criu_init_opts())
		return 2;
	if ((v = strchr(argv[1], ':')))
		criu_set_service_address(v + 1);
	for (int i = 3; i < argc; i++) {
		if ((v = value(argv[i], "dir")))
			criu_set_images_dir_fd(open(v, O_DIRECTORY | O_CLOEXEC));
		else if ((v = value(argv[i], "dirfd"))) /* inherited */
			criu_set_images_dir_fd(atoi(v));
		else if ((v = value(argv[i], "pid")))
			criu_set_pid(atoi(v));
		else if ((v = value(argv[i], "leave_running")))
			criu_set_leave_running(atoi(v));
		else if ((v = value(argv[i], "log_level")))
			criu_set_log_level(atoi(v));
		else if ((v = value(argv[i], "log_file")))
			criu_set_log_file(v);
		else if ((v = value(argv[i], "shell_job")))
			criu_set_shell_job(atoi(v));
		else
			return 2;
	}
	if (!strcmp(op, "check"))
		ret = criu_check();
	else if (!strcmp(op, "version"))
		ret = criu_get_version();
	else if (!strcmp(op, "features"))
		ret = criu_feature_check(&f, sizeof(f));
	else if (!strcmp(op, "dump"))
		ret = criu_dump();
	else if (!strcmp(op, "predump"))
		ret = criu_pre_dump();
	else if (!strcmp(op, "restore"))
		ret = criu_restore();
	else
		return 2;
	err = errno;
	printf("%d %d\n%d %d %d %d\n%s\n%s\n", ret, err, f.mem_track, f.lazy_pages, f.pidfd_store, f.mem_compression,
	       criu_get_errmsg(), criu_get_log_error());
	criu_free_opts();
	return 0;
}
