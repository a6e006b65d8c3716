/*
 * rseq: is in a restartable sequence nearly all the time. A sequence that was left and entered again must have been
 * aborted: the kernel has then gone to its abort handler. What it must never do is to forget the sequence and let it go
 * on, which the victim sees at its end, from rseq_cs. Asked, it says "aborts N".
 */
#include "victim.h"

#include <stddef.h>
#include <sys/rseq.h>

static volatile unsigned long aborts, ends, forgotten;

static struct rseq *registered(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* Counts down for about 10 ms inside a sequence. */
static void sequence(struct rseq *area)
{
	unsigned long n = 10000000, seen = 0;

	__asm__ volatile goto("jmp 2f\n\t"
			      ".pushsection __rseq_cs, \"aw\"\n\t"
			      ".balign 32\n"
			      "1:\t.long 0, 0\n\t.quad 3f, (4f - 3f), 5f\n\t"
			      ".popsection\n"
			      "2:\tleaq 1b(%%rip), %%rax\n\tmovq %%rax, %c[cs](%[area])\n"
			      "3:\n"
			      "6:\tdec %[n]\n\tjnz 6b\n\t"
			      "movq %c[cs](%[area]), %%rcx\n"
			      "4:\n\t"
			      "cmpq %%rax, %%rcx\n\tjne %l[lost]\n\tjmp %l[end]\n\t"
			      ".long 0x53053053\n" /* RSEQ_SIG, as the bytes of an instruction that faults */
			      "5:\tjmp %l[aborted]\n"
			      :
			      : [area] "r"(area), [cs] "i"(offsetof(struct rseq, rseq_cs)), [n] "r"(n), "r"(seen)
			      : "rax", "rcx", "cc", "memory"
			      : lost, end, aborted);
end:
	ends++;
	return;
lost:
	forgotten++;
	return;
aborted:
	aborts++;
}

int main(int argc, char **argv)
{
	struct rseq *area = registered();
	sigset_t waiting;

	victim_init(argc, argv);
	if (__rseq_size == 0)
		victim_die("rseq is not registered");
	sigprocmask(SIG_SETMASK, NULL, &waiting);
	victim_ready();
	while (!victim_asked) {
		sigset_t pending;

		sequence(area);
		if (sabotage)
			forgotten++;
		sigpending(&pending);
		if (sigismember(&pending, SIGUSR1) || sigismember(&pending, SIGUSR2)) {
			sigset_t open = victim_open_mask();

			sigsuspend(&open);
		}
		if (victim_asked_on) {
			victim_asked_on = 0;
			victim_say("aborts %lu", aborts);
		}
	}
	if (forgotten)
		victim_fail("%lu sequences were left and not aborted (%lu aborted, %lu came to their end)", forgotten, aborts, ends);
	victim_ok();
}
