/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the parts of the compatibility driver have in common: driver.c runs cases, driver_peer.c plays the other end of the
 * connection, driver_answers.c has the cases of what a peer says and does, driver_setters.c those of what it is asked.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <criu.h>

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exported by every version, declared by none. */
void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);
void criu_free_service(criu_opts *opts);
extern const char *criu_lib_version;

extern char log_path[PATH_MAX]; /* where the peer writes what it has got */

/* driver_peer.c */
int count_fds(void);
void peer_run(int fd, const char *script);
int peer_main(char **argv);

/* driver.c */
enum mode { FD, SK, BIN };
extern const char *const mode_names[];

extern pid_t helper; /* the peer of the modes fd and sk */
extern int fds_before;
extern int notify_ret, notify_at; /* what the callback returns, and at the how-maniest call; otherwise 0 */
extern int more_rounds, more_end; /* how often more says yes, and what it says then */

struct feats {
	unsigned char b[8];
	size_t size;
	int null;
};
extern struct feats feats;

void print_log(void);
criu_opts *fresh(void);
void prepare(criu_opts *o, enum mode m, const char *script);
void act(criu_opts *o, const char *action);
int notify_cb(char *action, criu_notify_arg_t na);
int more(criu_predump_info pi);

/* Runs a case in a child. */
#define CASE(name, ...) \
	do { \
		printf("case %s\n", name); \
		fflush(stdout); \
		unlink(log_path); \
		pid_t case_pid = fork(); \
		if (case_pid == 0) { \
			alarm(10); /* a hang is reported as signal 14 */ \
			__VA_ARGS__; \
			fflush(stdout); \
			_exit(0); \
		} \
		int case_status; \
		waitpid(case_pid, &case_status, 0); \
		while (wait(NULL) > 0) /* what a case has left behind came to us */ \
			; \
		print_log(); \
		if (WIFSIGNALED(case_status)) \
			printf("  signal %d\n", WTERMSIG(case_status)); \
		else if (WEXITSTATUS(case_status)) \
			printf("  signal 0, exit status %d\n", WEXITSTATUS(case_status)); \
	} while (0)

/* driver_answers.c */
void all_actions(void);
void all_iters(void);
void connections(void);
void interruptions(void);
void feature_sizes(void);
void versions(void);

/* driver_setters.c */
void setters(void);
void custom_setters(void);
void misuse(void);

#endif
