/*
 * What the victims share. A victim sets something up, says so, waits to be asked, checks that what it set up is still
 * there, and says what it found:
 *
 *	int main(int argc, char **argv)
 *	{
 *		victim_init(argc, argv);
 *		... set up ...
 *		victim_ready();
 *		if (sabotage)
 *			... spoil what was set up ...
 *		victim_wait();
 *		... check; victim_fail("why") for each thing that is not as it should be ...
 *		victim_ok();
 *	}
 *
 * SIGUSR1 asks for the verdict: a line "ok", or one or more "FAIL why", and the exit status 0 or 1. SIGUSR2, where a
 * victim has something to tell, asks for a line about where it stands. With --sabotage as its last argument a victim
 * must find itself spoiled; a victim that does not is no proof of anything.
 *
 * Lines go to the file named by the environment variable VICTIM_OUTPUT, opened to append, or else to standard output.
 */
#ifndef VICTIM_H
#define VICTIM_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool sabotage;		  /* the last argument was --sabotage; it is no longer counted in victim_argc */
static int victim_argc;
static char **victim_argv;
static int victim_output = STDOUT_FILENO;
static volatile sig_atomic_t victim_failed;

static volatile sig_atomic_t victim_asked;    /* SIGUSR1 has come */
static volatile sig_atomic_t victim_asked_on; /* SIGUSR2 has come; whoever answers sets it back */

/* One write per line, so that lines of several processes do not mix. */
static void victim_vsay(const char *prefix, const char *format, va_list args)
{
	char line[512];
	int length = snprintf(line, sizeof(line), "%s", prefix);

	length += vsnprintf(line + length, sizeof(line) - length - 1, format, args);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	if (write(victim_output, line, length) != length)
		_exit(3);
}

__attribute__((format(printf, 1, 2), unused)) static void victim_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	victim_vsay("", format, args);
	va_end(args);
}

/* Notes that something is not as it should be. */
__attribute__((format(printf, 1, 2), unused)) static void victim_fail(const char *format, ...)
{
	va_list args;

	victim_failed = 1;
	va_start(args, format);
	victim_vsay("FAIL ", format, args);
	va_end(args);
}

/* Ends a victim that cannot be set up: no line "ready" follows. */
__attribute__((format(printf, 1, 2), noreturn, unused)) static void victim_die(const char *format, ...)
{
	int saved = errno;
	va_list args;
	char prefix[128];

	snprintf(prefix, sizeof(prefix), "cannot be set up (errno %d, %s): ", saved, strerror(saved));
	va_start(args, format);
	victim_vsay(prefix, format, args);
	va_end(args);
	_exit(2);
}

/* Ends the victim with its verdict. */
__attribute__((noreturn, unused)) static void victim_ok(void)
{
	if (victim_failed)
		_exit(1);
	victim_say("ok");
	_exit(0);
}

static void victim_on_signal(int signo)
{
	if (signo == SIGUSR1)
		victim_asked = 1;
	else
		victim_asked_on = 1;
}

/* Both signals are blocked but inside victim_wait, so that they interrupt nothing a victim does. */
__attribute__((unused)) static void victim_init(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = victim_on_signal };
	const char *output = getenv("VICTIM_OUTPUT");
	sigset_t asking;

	if (argc > 1 && strcmp(argv[argc - 1], "--sabotage") == 0) {
		sabotage = true;
		argc--;
	}
	victim_argc = argc;
	victim_argv = argv;
	if (output) {
		victim_output = open(output, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
		if (victim_output < 0)
			_exit(3);
	}
	sigemptyset(&asking);
	sigaddset(&asking, SIGUSR1);
	sigaddset(&asking, SIGUSR2);
	if (sigprocmask(SIG_BLOCK, &asking, NULL) || sigaction(SIGUSR1, &action, NULL) || sigaction(SIGUSR2, &action, NULL))
		victim_die("signals");
}

__attribute__((unused)) static void victim_ready(void)
{
	victim_say("ready");
}

/* The signal mask to wait with, for calls such as ppoll and sigsuspend: the current one without the two signals. */
__attribute__((unused)) static sigset_t victim_open_mask(void)
{
	sigset_t mask;

	sigprocmask(SIG_SETMASK, NULL, &mask);
	sigdelset(&mask, SIGUSR1);
	sigdelset(&mask, SIGUSR2);
	return mask;
}

/* Sleeps until the verdict is asked for. */
__attribute__((unused)) static void victim_wait(void)
{
	sigset_t mask = victim_open_mask();

	while (!victim_asked)
		sigsuspend(&mask);
}

/* An argument as a number, or a default. */
__attribute__((unused)) static long victim_number(int index, long otherwise)
{
	return index < victim_argc ? strtol(victim_argv[index], NULL, 0) : otherwise;
}

/* The position-th word of an endless pseudo-random sequence: data that can be made again to be compared. */
__attribute__((unused)) static uint64_t victim_word(uint64_t seed, uint64_t position)
{
	uint64_t x = seed + (position + 1) * UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

#endif
