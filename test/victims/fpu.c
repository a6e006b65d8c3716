/*
 * fpu: the registers of the floating point unit and of vectors, all at once, in threads that compute with nothing else and
 * make no system call: x87 with its control word, MXCSR, SSE, and AVX and AVX-512 with its masks where there are any.
 */
#include "victim.h"
#include <cpuid.h>
#include <pthread.h>
#include <stddef.h>

#define THREADS 3

static volatile int go_on = 1, started;
static bool has_avx, has_avx512;

struct registers {
	uint8_t vector[32][64] __attribute__((aligned(64)));
	uint64_t mask[8];
	double x87[4];
	uint16_t control;
	uint32_t mxcsr;
};

static struct registers want[THREADS], got[THREADS];

static uint64_t xgetbv(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low | (uint64_t)high << 32;
}

static void look_at_processor(void)
{
	uint32_t a, b, c, d;
	uint64_t enabled;

	__cpuid(1, a, b, c, d);
	if (!(c & bit_OSXSAVE))
		return;
	enabled = xgetbv();
	has_avx = (c & bit_AVX) && (enabled & 6) == 6;
	__cpuid_count(7, 0, a, b, c, d);
	has_avx512 = has_avx && (b & bit_AVX512F) && (b & bit_AVX512BW) && (enabled & 0xe0) == 0xe0;
}

/* Everything in one statement: between loading and storing nothing else uses the registers. */
#define X87_LOAD                                                                                                               \
	"fninit\n fldcw %c[control](%[want])\n fldl %c[x87](%[want])\n fldl %c[x87]+8(%[want])\n fldl %c[x87]+16(%[want])\n"   \
	"fldl %c[x87]+24(%[want])\n ldmxcsr %c[mxcsr](%[want])\n"
#define X87_STORE                                                                                                              \
	"fstpl %c[x87]+24(%[got])\n fstpl %c[x87]+16(%[got])\n fstpl %c[x87]+8(%[got])\n fstpl %c[x87](%[got])\n"             \
	"fnstcw %c[control](%[got])\n stmxcsr %c[mxcsr](%[got])\n"
#define SPIN "lock incl %[started]\n 1: pause\n cmpl $0, %[go_on]\n jne 1b\n"
#define OPERANDS(w, g)                                                                                                         \
	[started] "+m"(started)                                                                                                \
		: [want] "r"(w), [got] "r"(g), [go_on] "m"(go_on), [control] "i"(offsetof(struct registers, control)),         \
		  [x87] "i"(offsetof(struct registers, x87)), [mxcsr] "i"(offsetof(struct registers, mxcsr)),                  \
		  [mask] "i"(offsetof(struct registers, mask))
#define EACH16(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define SSE_LOAD(n) "movups " #n "*64(%[want]), %%xmm" #n "\n"
#define SSE_STORE(n) "movups %%xmm" #n ", " #n "*64(%[got])\n"
#define AVX_LOAD(n) "vmovups " #n "*64(%[want]), %%ymm" #n "\n"
#define AVX_STORE(n) "vmovups %%ymm" #n ", " #n "*64(%[got])\n"
#define ZMM_LOAD(n) "vmovups " #n "*64(%[want]), %%zmm" #n "\n"
#define ZMM_STORE(n) "vmovups %%zmm" #n ", " #n "*64(%[got])\n"
#define UPPER(op)                                                                                                              \
	op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define MASK_LOAD(n) "kmovq %c[mask]+" #n "*8(%[want]), %%k" #n "\n"
#define MASK_STORE(n) "kmovq %%k" #n ", %c[mask]+" #n "*8(%[got])\n"
#define EACH8(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)

#define CLOBBERS                                                                                                               \
	"memory", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", \
		"xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static void hold_sse(const struct registers *w, struct registers *g)
{
	__asm__ volatile(X87_LOAD EACH16(SSE_LOAD) SPIN EACH16(SSE_STORE) X87_STORE : OPERANDS(w, g) : CLOBBERS);
}

__attribute__((target("avx"))) static void hold_avx(const struct registers *w, struct registers *g)
{
	__asm__ volatile(X87_LOAD EACH16(AVX_LOAD) SPIN EACH16(AVX_STORE) X87_STORE "vzeroupper\n" : OPERANDS(w, g) : CLOBBERS);
}

__attribute__((target("avx512f,avx512bw"))) static void hold_avx512(const struct registers *w, struct registers *g)
{
	__asm__ volatile(X87_LOAD EACH16(ZMM_LOAD) UPPER(ZMM_LOAD) EACH8(MASK_LOAD) SPIN EACH16(ZMM_STORE) UPPER(ZMM_STORE)
				 EACH8(MASK_STORE) X87_STORE "vzeroupper\n"
			 : OPERANDS(w, g)
			 : CLOBBERS, "k1", "k2", "k3", "k4", "k5", "k6", "k7");
}

static void *thread(void *arg)
{
	size_t i = (size_t)arg;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	if (has_avx512)
		hold_avx512(&want[i], &got[i]);
	else if (has_avx)
		hold_avx(&want[i], &got[i]);
	else
		hold_sse(&want[i], &got[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	const size_t width = sizeof(want[0].vector[0]);
	pthread_t ids[THREADS];

	victim_init(argc, argv);
	look_at_processor();
	for (size_t i = 0; i < THREADS; i++) {
		for (size_t n = 0; n < sizeof(want[i].vector) / 8; n++)
			((uint64_t *)want[i].vector)[n] = victim_word(i, n);
		for (size_t n = 0; n < 8; n++)
			want[i].mask[n] = victim_word(100 + i, n);
		for (size_t n = 0; n < 4; n++)
			want[i].x87[n] = (double)(i * 100 + n) / 3;
		want[i].control = 0x037f | (uint16_t)(i << 10); /* rounding */
		want[i].mxcsr = 0x1f80 | (uint32_t)(i << 13);   /* rounding */
		if (i == 2)
			want[i].mxcsr |= 1 << 15 | 0x20; /* flush to zero; a result was not exact */
		if (pthread_create(&ids[i], NULL, thread, (void *)i))
			victim_die("pthread_create");
	}
	while (started < THREADS)
		sched_yield();

	victim_ready();
	if (sabotage)
		want[1].vector[15][0] ^= 1;
	victim_wait();

	go_on = 0;
	for (size_t i = 0; i < THREADS; i++) {
		size_t vectors = has_avx512 ? 32 : 16, bytes = has_avx512 ? width : has_avx ? 32 : 16;

		pthread_join(ids[i], NULL);
		for (size_t n = 0; n < vectors; n++)
			if (memcmp(got[i].vector[n], want[i].vector[n], bytes))
				victim_fail("thread %zu: vector register %zu has changed", i, n);
		if (has_avx512 && memcmp(got[i].mask, want[i].mask, sizeof(want[i].mask)))
			victim_fail("thread %zu: a mask register has changed", i);
		if (memcmp(got[i].x87, want[i].x87, sizeof(want[i].x87)))
			victim_fail("thread %zu: the x87 stack has changed", i);
		if (got[i].control != want[i].control || got[i].mxcsr != want[i].mxcsr)
			victim_fail("thread %zu: control word %#x and MXCSR %#x, not %#x and %#x", i, got[i].control, got[i].mxcsr,
				    want[i].control, want[i].mxcsr);
	}
	victim_ok();
}
