/*
 * chroot: a process with a root directory of its own, and a working directory in it, and a child with another one.
 */
#include "victim.h"
#include <sys/stat.h>

static void check(const char *who, const char *want)
{
	char here[256];
	struct stat st;

	if (!getcwd(here, sizeof(here)) || strcmp(here, want))
		victim_fail("%s: the working directory is %.200s, not %s", who, here, want);
	if (stat("/marker", &st) || !S_ISDIR(st.st_mode))
		victim_fail("%s: the root directory is another", who);
	if (stat("/proc", &st) == 0)
		victim_fail("%s: the way out of the root directory is open", who);
}

int main(int argc, char **argv)
{
	char dir[] = "chroot-XXXXXX", path[64];
	int child, status, set_up[2];
	char byte;

	victim_init(argc, argv);
	if (!mkdtemp(dir))
		victim_die("mkdtemp");
	for (const char *const *name = (const char *const[]){ "marker", "inside", "inside/marker", "inside/deeper", NULL }; *name; name++) {
		snprintf(path, sizeof(path), "%s/%s", dir, *name);
		if (mkdir(path, 0755))
			victim_die("mkdir %s", path);
	}
	if (chroot(dir) || chdir("/inside") || pipe(set_up))
		victim_die("chroot");
	child = fork();
	if (child < 0)
		victim_die("fork");
	if (child == 0) {
		if (chroot("/inside") || chdir("/deeper") || write(set_up[1], "x", 1) != 1)
			_exit(1);
		close(set_up[0]);
		close(set_up[1]);
		victim_wait();
		check("child", "/deeper");
		_exit(victim_failed);
	}
	close(set_up[1]);
	if (read(set_up[0], &byte, 1) != 1)
		victim_die("the child");
	close(set_up[0]);

	victim_ready();
	if (sabotage && chdir("/"))
		victim_die("chdir");
	victim_wait();

	check("process", "/inside");
	kill(child, SIGUSR1);
	if (waitpid(child, &status, 0) != child || status)
		victim_fail("the child ended with %#x", status);
	victim_ok();
}
