/*
 * Processes that have the memory of the one that makes them (CLONE_VM) and are no threads of it. Each has its own thread-local
 * storage, so that it may call what a thread may.
 */
#ifndef SHARING_H
#define SHARING_H

#include "victim.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

struct sharing {
	unsigned long flags;
	void *(*run)(void *);
	void *argument;
	char *stack;
	pid_t parent, maker;
	volatile pid_t pid;
};

enum { SHARING_STACK = 256 << 10 };

static int sharing_child(void *argument)
{
	struct sharing *s = argument;

	/* The thread that has made this process gives it its thread-local storage, and ends. Its end is no parent's death. */
	while (syscall(SYS_tgkill, s->parent, s->maker, 0) == 0)
		sched_yield();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (kill(s->parent, 0))
		_exit(3);
	s->pid = getpid();
	s->run(s->argument);
	_exit(0);
}

static void *sharing_make(void *argument)
{
	struct sharing *s = argument;

	s->maker = gettid();
	if (clone(sharing_child, s->stack + SHARING_STACK, (int)(CLONE_VM | SIGCHLD | s->flags), s) < 0)
		s->pid = -errno;
	syscall(SYS_exit, 0);
	return NULL;
}

/* Makes a process that runs a function, and returns its number when it does. Flags say what else it shares. */
static pid_t sharing_process(unsigned long flags, void *(*run)(void *), void *argument)
{
	struct sharing *s = calloc(1, sizeof(*s));
	pthread_t thread;

	s->flags = flags;
	s->run = run;
	s->argument = argument;
	s->parent = getpid();
	s->stack = mmap(NULL, SHARING_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->stack == MAP_FAILED || pthread_create(&thread, NULL, sharing_make, s))
		victim_die("a process that shares memory");
	while (s->pid == 0)
		sched_yield();
	if (s->pid < 0) {
		errno = -s->pid;
		victim_die("clone");
	}
	return s->pid;
}

#endif
