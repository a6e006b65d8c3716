/*
 * creds: who a process is. "user" has become somebody else, with groups, and has no rights left; "rights" is root with
 * fewer capabilities, some of them inheritable and ambient, securebits and no_new_privs; "threads" has threads that are
 * all somebody else.
 */
#include "victim.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define CAP(name) (UINT64_C(1) << (name))

static const struct who {
	int groups;
	uint32_t group[4];
	uint32_t gid[4], uid[4]; /* real, effective, saved, of file systems */
	bool capabilities;	 /* the sets are to be set; else what the kernel makes of the ids is left */
	uint64_t effective, permitted, inheritable, ambient, drop;
	int securebits;
	bool no_new_privs;
} all[] = {
	{ .groups = 3, .group = { 4242, 5, 4243 }, .gid = { 4242, 4242, 4242, 4242 }, .uid = { 4242, 4242, 4242, 4242 } },
	{ .groups = 2, .group = { 0, 7 }, .capabilities = true,
	  .effective = CAP(CAP_KILL) | CAP(CAP_SETPCAP),
	  .permitted = CAP(CAP_KILL) | CAP(CAP_SETPCAP) | CAP(CAP_CHOWN) | CAP(CAP_NET_RAW),
	  .inheritable = CAP(CAP_CHOWN) | CAP(CAP_NET_RAW) | CAP(CAP_SYS_PTRACE), .ambient = CAP(CAP_NET_RAW),
	  .drop = CAP(CAP_SYS_BOOT) | CAP(CAP_SYS_PTRACE) | CAP(CAP_MKNOD),
	  .securebits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS, .no_new_privs = true },
	{ .groups = 1, .group = { 9 }, .gid = { 10, 11, 12, 13 }, .uid = { 0, 4300, 0, 4301 } },
	{ .groups = 0, .gid = { 10, 10, 10, 10 }, .uid = { 4400, 4401, 4402, 4402 }, .capabilities = true,
	  .effective = CAP(CAP_NET_BIND_SERVICE), .permitted = CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_KILL),
	  .inheritable = CAP(CAP_NET_BIND_SERVICE), .ambient = CAP(CAP_NET_BIND_SERVICE) },
	{ .groups = 1, .group = { 4242 }, .gid = { 1, 2, 3, 2 }, .uid = { 4242, 4242, 4242, 4242 }, .no_new_privs = true },
};

static void capset_now(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ effective, permitted, inheritable }, { effective >> 32, permitted >> 32, inheritable >> 32 }
	};

	if (syscall(SYS_capset, &header, data))
		victim_die("capset");
}

static uint64_t permitted_now(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		victim_die("capget");
	return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

/* The system calls themselves: those of the C library are for all threads. */
static void become(const struct who *w)
{
	uint64_t permitted = permitted_now();

	if (w->capabilities)
		capset_now(permitted, permitted, w->inheritable);
	for (int c = 0; c < 64; c++)
		if (w->drop >> c & 1 && prctl(PR_CAPBSET_DROP, c))
			victim_die("PR_CAPBSET_DROP %d", c);
	if (w->capabilities && prctl(PR_SET_KEEPCAPS, 1))
		victim_die("PR_SET_KEEPCAPS");
	if (syscall(SYS_setgroups, w->groups, w->group) || syscall(SYS_setresgid, w->gid[0], w->gid[1], w->gid[2]))
		victim_die("groups");
	syscall(SYS_setfsgid, w->gid[3]);
	if (syscall(SYS_setresuid, w->uid[0], w->uid[1], w->uid[2]))
		victim_die("setresuid");
	if (w->capabilities)
		capset_now(permitted, permitted, w->inheritable);
	syscall(SYS_setfsuid, w->uid[3]);
	for (int c = 0; c < 64; c++)
		if (w->ambient >> c & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0))
			victim_die("PR_CAP_AMBIENT_RAISE %d", c);
	if (w->capabilities) {
		if (prctl(PR_SET_SECUREBITS, w->securebits))
			victim_die("PR_SET_SECUREBITS");
		capset_now(w->effective, w->permitted, w->inheritable);
	}
	if (w->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		victim_die("PR_SET_NO_NEW_PRIVS");
}

/* What the kernel says of a thread: some lines of its status, and its securebits. */
struct state {
	char text[2048];
};

static void look(struct state *s)
{
	static const char *const keys[] = { "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:" };
	FILE *status = fopen("/proc/thread-self/status", "r");
	char line[512];
	size_t used;

	if (!status)
		victim_die("/proc/thread-self/status");
	used = snprintf(s->text, sizeof(s->text), "securebits %#x ", prctl(PR_GET_SECUREBITS));
	while (fgets(line, sizeof(line), status))
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (strncmp(line, keys[i], strlen(keys[i])) == 0) {
				line[strcspn(line, "\n")] = ' ';
				used += snprintf(s->text + used, sizeof(s->text) - used, "%s", line);
			}
	fclose(status);
}

static void compare(const char *who, const struct state *before)
{
	struct state now;

	look(&now);
	if (strcmp(now.text, before->text)) {
		victim_fail("%s was %.220s", who, before->text);
		victim_fail("%s is %.220s", who, now.text);
	}
}

static pthread_barrier_t there, asked, answered;

static void *thread(void *arg)
{
	struct state before;
	sigset_t set;
	char name[32];

	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	become(arg);
	look(&before);
	snprintf(name, sizeof(name), "thread %td", (const struct who *)arg - all);
	pthread_barrier_wait(&there);
	pthread_barrier_wait(&asked);
	compare(name, &before);
	pthread_barrier_wait(&answered);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *kind;
	const size_t first = 2, threads = sizeof(all) / sizeof(all[0]) - first;
	struct state before;
	pthread_t id;
	bool with_threads;

	victim_init(argc, argv);
	kind = victim_argc > 1 ? victim_argv[1] : "user";
	with_threads = strcmp(kind, "threads") == 0;
	if (with_threads) {
		pthread_barrier_init(&there, NULL, threads + 1);
		pthread_barrier_init(&asked, NULL, threads + 1);
		pthread_barrier_init(&answered, NULL, threads + 1);
		for (size_t i = 0; i < threads; i++)
			if (pthread_create(&id, NULL, thread, (void *)&all[first + i]))
				victim_die("pthread_create");
		pthread_barrier_wait(&there);
	} else if (strcmp(kind, "rights") == 0) {
		struct who w = all[1];

		if (victim_argc > 2 && strcmp(victim_argv[2], "criu") == 0)
			w.drop &= ~w.inheritable; /* it sets the one before the other */
		become(&w);
	} else {
		become(&all[0]);
	}
	look(&before);

	victim_ready();
	if (sabotage)
		before.text[strlen(before.text) - 2] ^= 1; /* without rights there is little to spoil but the memory of it */
	victim_wait();

	compare("the process", &before);
	if (with_threads) {
		pthread_barrier_wait(&asked);
		pthread_barrier_wait(&answered);
	}
	victim_ok();
}
