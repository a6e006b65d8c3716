/* gone: files whose names are gone, with holes, of one inode, mapped, a directory, a fifo, and one that has another name. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
	int fd = open("sparse", O_RDWR | O_CREAT | O_EXCL, 0640);

	ftruncate(fd, 65536);
	pwrite(fd, "there", 5, 8192);
	fsync(fd);
	open("sparse", O_WRONLY | O_APPEND);
	mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	mmap(NULL, 65536, PROT_READ, MAP_PRIVATE, fd, 0);
	fchown(fd, 1234, 5678);
	unlink("sparse");

	fd = open("text", O_RDWR | O_CREAT | O_EXCL, 0600);
	write(fd, "some text", 9);
	unlink("text");

	mkdir("directory", 0750);
	open("directory", O_RDONLY | O_DIRECTORY);
	rmdir("directory");

	mkfifo("fifo", 0620);
	open("fifo", O_RDWR);
	unlink("fifo");

	open("linked", O_RDONLY | O_CREAT | O_EXCL, 0600);
	link("linked", "other");
	unlink("linked");

	puts("ready");
	fflush(stdout);
	pause();
}
