/*
 * leaderless [N]: the first thread has exited; N others (3) go on: one waits for the verdict, the others hand a turn around. There is
 * a child, which asks for a signal when its parent ends. The check is that all still have their numbers, names and values, that the
 * process answers to its own, and that the child has not been told of any end.
 */
#include "victim.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { MOST = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int count, turn, stopping;
static uint64_t turns;
static pid_t process, tids[MOST], child;
static __thread uint64_t local;

static void live(long index)
{
	char name[16], now[16];

	snprintf(name, sizeof(name), "follower-%ld", index);
	prctl(PR_SET_NAME, name);
	local = victim_word(index, 0);
	pthread_mutex_lock(&lock);
	tids[index] = syscall(SYS_gettid);
	pthread_cond_broadcast(&turned);
	while (!stopping) {
		while (turn != index && !stopping)
			pthread_cond_wait(&turned, &lock);
		turns++;
		turn = turn % (count - 1) + 1;
		pthread_cond_broadcast(&turned);
		pthread_mutex_unlock(&lock);
		usleep(2000);
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
	if (local != victim_word(index, 0) || syscall(SYS_gettid) != tids[index] || prctl(PR_GET_NAME, now) || strcmp(now, name))
		victim_fail("thread %ld: its value, number or name has changed", index);
}

static void *follow(void *index)
{
	live((long)index);
	return NULL;
}

static char leader_state(void)
{
	char name[64], text[256] = "", *p;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/task/%d/stat", process, process);
	f = fopen(name, "r");
	if (f && fgets(text, sizeof(text), f) && (p = strrchr(text, ')'))) {
		fclose(f);
		return strncmp(strchr(text, '('), "(the leader)", 12) ? '?' : p[2];
	}
	return '-';
}

/* The thread that the others are joined by. */
static void *lead(void *nothing)
{
	pthread_t others[MOST];
	uint64_t before;

	while (leader_state() != 'Z')
		usleep(1000);
	for (long i = 1; i < count; i++)
		if (pthread_create(&others[i], NULL, follow, (void *)i))
			victim_die("pthread_create");
	pthread_mutex_lock(&lock);
	for (int i = 1; i < count; i++)
		while (!tids[i])
			pthread_cond_wait(&turned, &lock);
	turn = 1;
	pthread_cond_broadcast(&turned);
	pthread_mutex_unlock(&lock);
	victim_ready();
	if (sabotage)
		kill(child, SIGTERM);
	victim_wait();
	pthread_mutex_lock(&lock);
	before = turns;
	while (turns < before + count)
		pthread_cond_wait(&turned, &lock);
	stopping = 1;
	pthread_cond_broadcast(&turned);
	pthread_mutex_unlock(&lock);
	for (int i = 1; i < count; i++)
		pthread_join(others[i], NULL);
	if (leader_state() != 'Z')
		victim_fail("the first thread is in state %c", leader_state());
	if (getpid() != process)
		victim_fail("the process has number %d, had %d", getpid(), process);
	if (waitpid(child, NULL, WNOHANG))
		victim_fail("the child has ended");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	victim_ok();
	return nothing;
}

int main(int argc, char **argv)
{
	pthread_t t;

	victim_init(argc, argv);
	process = getpid();
	count = victim_number(1, 3);
	if (count < 2 || count > MOST)
		victim_die("%d threads", count);
	if (prctl(PR_SET_NAME, "the leader") || pthread_create(&t, NULL, lead, NULL))
		victim_die("pthread_create");
	pthread_detach(t);
	/* Made by the first thread, whose end the child would be told of. It asks when that has ended. */
	child = fork();
	if (child == 0) {
		while (leader_state() != 'Z')
			usleep(1000);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	syscall(SYS_exit, 0);
}
