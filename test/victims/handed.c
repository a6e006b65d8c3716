/*
 * handed: reads a text from a file that it has opened, NAME, and wants it to be TEXT. Without arguments it makes the file
 * itself; "-" is its standard input. Whoever restores it may hand in another file.
 */
#include "victim.h"

int main(int argc, char **argv)
{
	const char *name, *text;
	char got[256] = "";
	int fd;

	victim_init(argc, argv);
	name = victim_argc > 1 ? victim_argv[1] : "handed.data";
	text = victim_argc > 2 ? victim_argv[2] : "text";
	if (victim_argc < 2) {
		fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
		if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd))
			victim_die("make %s", name);
	}
	fd = strcmp(name, "-") ? open(name, O_RDONLY) : STDIN_FILENO;
	if (fd < 0)
		victim_die("open %s", name);

	victim_ready();
	if (sabotage)
		lseek(fd, 1, SEEK_SET);
	victim_wait();

	if (read(fd, got, sizeof(got) - 1) < 0)
		victim_fail("read: %s", strerror(errno));
	if (strcmp(got, text))
		victim_fail("the file says \"%s\", not \"%s\"", got, text);
	victim_ok();
}
