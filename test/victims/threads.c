/*
 * threads [N]: N threads (8) that hand a turn around under a mutex and a condition variable, each with a thread-local
 * value, an alternate signal stack, a signal mask and a name of its own. The main thread waits for the verdict, asks
 * the others to stop, and counts their turns.
 */
#include "victim.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { MOST = 64 };

struct worker {
	pthread_t thread;
	int index;
	pid_t tid;
	uint64_t turns;
	char stack[32768];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn, count, stopping, started;
static uint64_t turns;
static struct worker workers[MOST];

static __thread uint64_t local;

static void own_state(struct worker *w, stack_t *stack, sigset_t *mask, char *name)
{
	memset(stack, 0, sizeof(*stack));
	stack->ss_sp = w->stack;
	stack->ss_size = sizeof(w->stack);
	pthread_sigmask(SIG_SETMASK, NULL, mask);
	sigaddset(mask, SIGRTMIN + 1 + w->index % 16);
	snprintf(name, 16, "worker-%d", w->index);
}

static void check_state(struct worker *w)
{
	stack_t stack, stack_now;
	sigset_t mask, mask_now;
	char name[16], name_now[16];

	own_state(w, &stack, &mask, name);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_now);
	if (local != victim_word(w->index, 0))
		victim_fail("thread %d: its thread-local value has changed", w->index);
	if (sigaltstack(NULL, &stack_now) || stack_now.ss_sp != stack.ss_sp || stack_now.ss_size != stack.ss_size)
		victim_fail("thread %d: its signal stack has changed", w->index);
	if (!sigismember(&mask_now, SIGRTMIN + 1 + w->index % 16))
		victim_fail("thread %d: its signal mask has changed", w->index);
	if (prctl(PR_GET_NAME, name_now) || strcmp(name, name_now))
		victim_fail("thread %d: its name has changed to %s", w->index, name_now);
	if (syscall(SYS_gettid) != w->tid)
		victim_fail("thread %d: its id has changed from %d to %ld", w->index, w->tid, syscall(SYS_gettid));
}

static void *work(void *arg)
{
	struct worker *w = arg;
	stack_t stack;
	sigset_t mask;
	char name[16];

	local = victim_word(w->index, 0);
	w->tid = syscall(SYS_gettid);
	own_state(w, &stack, &mask, name);
	if (sigaltstack(&stack, NULL) || pthread_sigmask(SIG_SETMASK, &mask, NULL) || prctl(PR_SET_NAME, name))
		victim_die("thread %d", w->index);
	pthread_mutex_lock(&lock);
	started++;
	pthread_cond_broadcast(&turned);
	for (;;) {
		while (turn != w->index && !stopping)
			pthread_cond_wait(&turned, &lock);
		if (stopping)
			break;
		w->turns++;
		turns++;
		turn = (turn + 1) % count;
		pthread_cond_broadcast(&turned);
		/* Mostly asleep, in nanosleep and in futex, and not a busy loop. */
		pthread_mutex_unlock(&lock);
		usleep(5000);
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
	check_state(w);
	return w;
}

int main(int argc, char **argv)
{
	uint64_t sum = 0;

	victim_init(argc, argv);
	count = victim_number(1, 8);
	if (count < 1 || count > MOST)
		victim_die("%d threads", count);
	for (int i = 0; i < count; i++) {
		workers[i].index = i;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			victim_die("pthread_create");
	}
	pthread_mutex_lock(&lock);
	while (started < count)
		pthread_cond_wait(&turned, &lock);
	if (sabotage)
		workers[count - 1].turns++;
	pthread_mutex_unlock(&lock);

	victim_ready();
	victim_wait();

	/* All must still be able to move: one more turn each. */
	pthread_mutex_lock(&lock);
	sum = turns + count;
	while (turns < sum)
		pthread_cond_wait(&turned, &lock);
	stopping = 1;
	pthread_cond_broadcast(&turned);
	pthread_mutex_unlock(&lock);
	sum = 0;
	for (int i = 0; i < count; i++) {
		void *result = NULL;

		if (pthread_join(workers[i].thread, &result) || result != &workers[i])
			victim_fail("thread %d: its end was not its own", i);
		sum += workers[i].turns;
	}
	if (sum != turns)
		victim_fail("the threads had %llu turns, and %llu were counted", (unsigned long long)sum, (unsigned long long)turns);
	victim_ok();
}
