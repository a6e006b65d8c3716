/*
 * blocked [MIB [THREADS [FIRST [apart|processes]]]]: up to eight threads in the middle of things, beside MIB of memory (1) with known
 * contents: the main thread and others of the kinds from FIRST (1). Each goes through its call, or its registers, again
 * and again, and checks what came of it: a sleep must take its time, no call may fail with EINTR where no handler has
 * run, memory, vector registers, flags, masks and pending signals must be as they were. Asked, it says "rounds" and for
 * each thread how often it has gone round: all must grow. The kinds, the first for the main thread, which answers:
 * sigsuspend by a 20 ms timer, nanosleep, poll, futex, read, ppoll, and two that compute. With "apart" the others have
 * descriptors and working directories of their own; with "processes" they are processes that share the memory, each
 * second one descriptors, working directory and handlers too.
 */
#include "sharing.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { MAIN, SLEEP, POLL, FUTEX, READ, PPOLL, COMPUTE, COMPUTE2, KINDS };

static volatile uint64_t rounds[KINDS], ticks;
static int words[2], silence[2];
static bool apart, processes;
static long threads, first;
static const struct timespec tenth = { 0, 100000000 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void check_signals(long kind, const sigset_t *mask)
{
	sigset_t set;

	sigprocmask(SIG_BLOCK, NULL, &set);
	if (memcmp(&set, mask, 8))
		victim_fail("thread %ld: signal mask %lx, was %lx", kind, *(long *)&set, *(const long *)mask);
	sigpending(&set);
	if (!sigismember(&set, SIGWINCH))
		victim_fail("thread %ld: a pending signal is gone", kind);
}

/* Some milliseconds with known values in registers of every sort. */
static void compute(long kind)
{
	unsigned char in[64], out[64];
	uint64_t n = 3000000, other = 0x1122334455667788, wrong;
	double top = 3.25, popped = 0;

	for (int i = 0; i < 64; i++)
		in[i] = i * 7 + kind;
	__asm__ volatile("movups (%[in]), %%xmm9\n\tmovups 32(%[in]), %%xmm15\n\tfldl %[top]\n\t"
			 "mov %[other], %%r12\n\tmov %[other], %%r13\n\tstc\n"
			 "1:\tdec %[n]\n\tjnz 1b\n\t"
			 "setnc %%cl\n\tmovzx %%cl, %[wrong]\n\txor %%r12, %%r13\n\tor %%r13, %[wrong]\n\t"
			 "movups %%xmm9, (%[out])\n\tmovups %%xmm15, 32(%[out])\n\tfstpl %[popped]"
			 : [n] "+r"(n), [wrong] "=&r"(wrong), [popped] "=m"(popped)
			 : [in] "r"(in), [out] "r"(out), [other] "r"(other), [top] "m"(top)
			 : "r12", "r13", "rcx", "xmm9", "xmm15", "cc", "memory");
	if (memcmp(in, out, 16) || memcmp(in + 32, out + 32, 16))
		victim_fail("thread %ld: vector registers", kind);
	if (wrong)
		victim_fail("thread %ld: general registers or flags (%lx)", kind, (long)wrong);
	if (popped != top)
		victim_fail("thread %ld: x87 registers", kind);
}

#ifdef __x86_64__
/* The upper halves of the vector registers, which the instructions above leave alone. */
__attribute__((target("avx"))) static void compute_wide(long kind)
{
	unsigned char in[32], out[32];
	uint64_t n = 3000000;

	if (!__builtin_cpu_supports("avx"))
		return;
	for (int i = 0; i < 32; i++)
		in[i] = i * 5 + kind;
	__asm__ volatile("vmovups (%[in]), %%ymm7\n1:\tdec %[n]\n\tjnz 1b\n\tvmovups %%ymm7, (%[out])"
			 : [n] "+r"(n)
			 : [in] "r"(in), [out] "r"(out)
			 : "xmm7", "cc", "memory");
	if (memcmp(in, out, 32))
		victim_fail("thread %ld: wide vector registers", kind);
}
#else
static void compute_wide(long kind)
{
	(void)kind;
}
#endif

static void *run(void *argument)
{
	long kind = (long)argument;
	int word = 0;
	sigset_t mask;

	if (apart && unshare(CLONE_FILES | CLONE_FS))
		victim_die("unshare");
	if (processes)
		kill(getpid(), SIGWINCH); /* what waits is not inherited */

	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (;;) {
		struct pollfd quiet = { .fd = silence[0], .events = POLLIN };
		double start = now(), wanted = 0.1;
		long result = 0;
		char c;

		errno = 0;
		switch (kind) {
		case SLEEP:
			result = nanosleep(&tenth, NULL);
			break;
		case POLL:
			result = poll(&quiet, 1, 100);
			break;
		case FUTEX:
			result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &tenth, NULL, 0);
			if (result < 0 && errno == ETIMEDOUT)
				result = 0;
			break;
		case READ:
			result = read(words[0], &c, 1) - 1;
			wanted = 0;
			break;
		case PPOLL:
			result = ppoll(&quiet, 1, &tenth, &mask);
			break;
		default:
			compute(kind);
			compute_wide(kind);
			wanted = 0;
		}
		if (result)
			victim_fail("thread %ld: its call returns %ld, errno %d", kind, result, errno);
		else if (now() - start < wanted - 0.001)
			victim_fail("thread %ld: woke %f s early", kind, wanted - (now() - start));
		rounds[kind]++;
		check_signals(kind, &mask);
	}
	return NULL;
}

static void on_tick(int signo)
{
	(void)signo;
	ticks++;
}

int main(int argc, char **argv)
{
	struct itimerval timer = { { 0, 20000 }, { 0, 20000 } };
	struct sigaction action = { .sa_handler = on_tick };
	uint64_t *memory, length, at = 0;
	sigset_t blocked, mask, waiting;

	victim_init(argc, argv);
	length = victim_number(1, 1) << 17;
	threads = victim_number(2, KINDS);
	first = victim_number(3, 1);
	apart = victim_argc > 4 && !strcmp(victim_argv[4], "apart");
	processes = victim_argc > 4 && !strcmp(victim_argv[4], "processes");
	if (first < COMPUTE && threads > POLL && (pipe(words) || pipe(silence)))
		victim_die("pipe");
	memory = mmap(NULL, length * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		victim_die("memory");
	for (uint64_t i = 0; i < length; i++)
		memory[i] = victim_word(1, i);
	sigaction(SIGALRM, &action, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGALRM);
	sigaddset(&blocked, SIGWINCH);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	action.sa_handler = on_tick; /* not called: the signal stays pending */
	sigaction(SIGWINCH, &action, NULL);
	kill(getpid(), SIGWINCH);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (long i = 1; i < threads; i++) {
		pthread_t t;

		if (processes)
			sharing_process(i % 2 ? 0 : CLONE_FILES | CLONE_FS | CLONE_SIGHAND, run, (void *)(first + i - 1));
		else if (pthread_create(&t, NULL, run, (void *)(first + i - 1)))
			victim_die("thread");
	}
	setitimer(ITIMER_REAL, &timer, NULL);
	waiting = victim_open_mask();
	sigdelset(&waiting, SIGALRM);
	victim_ready();
	while (!victim_asked) {
		uint64_t before = ticks;

		if (sigsuspend(&waiting) != -1 || errno != EINTR)
			victim_fail("sigsuspend: errno %d", errno);
		if (before == ticks && !victim_asked && !victim_asked_on)
			victim_fail("sigsuspend returned and no handler ran");
		check_signals(MAIN, &mask);
		rounds[MAIN]++;
		if (rounds[MAIN] % 8 == 0 && first < COMPUTE && threads > READ && write(words[1], "x", 1) != 1)
			victim_fail("write to a pipe: errno %d", errno);
		for (int i = 0; i < 4096; i++, at = (at + 1) % length)
			if (memory[at] != victim_word(1, at) + (sabotage && at == 7)) {
				victim_fail("memory, word %lu", (unsigned long)at);
				at = 8;
			}
		if (victim_asked_on) {
			char line[256];
			int n = 0;

			victim_asked_on = 0;
			for (int i = 0; i < threads; i++)
				n += sprintf(line + n, " %lu", (unsigned long)rounds[i ? first + i - 1 : MAIN]);
			victim_say("rounds%s", line);
		}
	}
	/* Asked for, not set: a signal that is ignored by default is no longer pending then, and the threads look for it. */
	if (sigaction(SIGALRM, NULL, &action) || action.sa_handler != on_tick || sigaction(SIGWINCH, NULL, &action) ||
	    action.sa_handler != on_tick)
		victim_fail("a signal's handler");
	victim_ok();
}
