# The block: what a thread of another process executes on our behalf, and how it comes back by itself.
#
# Every thread that is driven has a block of its own: code, and among the code the state to go back to, addressed
# relative to the instruction pointer, so that a block works wherever it lies and needs no register, no stack and no
# libc. README.md says what state the thread is in at each instant and why it is safe to die there. The first part, up
# to the end of the state, is all that the boot block has; it lies in memory that the process itself cannot write, so
# nothing in it may write unless `shared` is set.
#
# `go generate` assembles this file with GNU as and writes block_amd64.go.

	.set SYS_close, 3
	.set SYS_read, 0
	.set SYS_mmap, 9
	.set SYS_munmap, 11
	.set SYS_rt_sigaction, 13
	.set SYS_rt_sigprocmask, 14
	.set SYS_sendto, 44
	.set SYS_recvfrom, 45
	.set SYS_rt_sigpending, 127
	.set SYS_ppoll, 271

	.set EINTR, 4
	.set SIG_SETMASK, 2
	.set SA_RESTART, 0x10000000
	.set PROT_READ, 1
	.set PROT_WRITE, 2
	.set MAP_PRIVATE, 2
	.set MAP_ANONYMOUS, 0x20
	.set MSG_DONTWAIT, 0x40
	.set MSG_NOSIGNAL, 0x4000

	# Policies: what a signal handler that runs before the interrupted call is restarted means for the call.
	.set policy_none, 0		# nothing: it is restarted, or there was none
	.set policy_eintr, 1		# it fails with EINTR (ERESTARTNOHAND, ERESTART_RESTARTBLOCK)
	.set policy_action, 2		# it does if the handler lacks SA_RESTART (ERESTARTSYS)

	# The head of the scratch area, shared by the blocks of a process. scratch.go has the same numbers.
	.set shared_fds, 0x20		# 8 descriptors of ours, -1 where there is none
	.set shared_fds_len, 8
	.set shared_park, 0x24		# the second is the park socket
	.set shared_blocks, 0x40	# how many blocks there are
	.set shared_first, 0x1000	# where the first one lies
	.set block_size, 0x4c0

	.text
block:

# The door. A thread that is put here in its original state but for the instruction pointer, at door+2, is resumed by
# the kernel as if it were still in its interrupted system call: with a signal handler to run, the kernel makes the call
# return EINTR, or go back by two bytes to be restarted, as the call and the handler want it; without, it goes back.
# So where the thread comes out tells what the kernel decided.
door:	jmp	restart
	movl	$1, %r15d
	jmp	leave

# One system call, between two syscall stops. The one that maps the scratch area is told by its result, when it is made
# from the boot block; what it has mapped, nobody else would find.
call:	syscall
	cmpq	%rax, area(%rip)
	jne	restart
	xorl	%r15d, %r15d
unmap:	movq	area(%rip), %rdi
	movq	area_length(%rip), %rsi
	movl	$SYS_munmap, %eax
	syscall
	jmp	leave

# From here to the end: the way back. r15 is 0 to restart the call and 1 to return from it.
restart:
	xorl	%r15d, %r15d
leave:	movl	$SYS_rt_sigprocmask, %eax
	movl	$SIG_SETMASK, %edi
	leaq	all_signals(%rip), %rsi
	xorl	%edx, %edx
	movl	$8, %r10d
	syscall
	movq	shared(%rip), %rbx
	testq	%rbx, %rbx
	jz	window

# In another table of descriptors than ours are in, their numbers are somebody else's.
	cmpl	$0, apart(%rip)
	jne	window

# No longer inside; the last one to leave closes the descriptors. Whoever is inside may still use them by number, and
# whoever is outside may already open files of its own.
	xorl	%eax, %eax
	xchgl	%eax, inside(%rip)
	movl	shared_blocks(%rbx), %ecx
	leaq	shared_first + (inside - block)(%rbx), %rsi
1:	cmpl	$0, (%rsi)
	jne	window
	addq	$block_size, %rsi
	decl	%ecx
	jnz	1b
	leaq	shared_fds(%rbx), %r14
	movl	$shared_fds_len, %ebp
2:	movl	$-1, %edi
	xchgl	%edi, (%r14)
	testl	%edi, %edi
	js	3f
	movl	$SYS_close, %eax
	syscall
3:	addq	$4, %r14
	decl	%ebp
	jnz	2b

# When there is no other thread to stand on it, the scratch area goes too. The boot block has the same state.
	cmpl	$1, shared_blocks(%rbx)
	jne	window
	jmp	*boot_unmap(%rip)

# Signals that wait are let in here, with the original mask, so that we learn whether a handler has run.
window:	movl	policy(%rip), %ebp
	testl	%ebp, %ebp
	jz	settle
	testl	%r15d, %r15d
	jnz	settle
	movq	sp(%rip), %rsp
	cmpl	$policy_action, %ebp
	jne	ask

# It depends on the first handler that will run. To ask for it takes some memory that can be written.
	xorl	%edi, %edi
	movl	$4096, %esi
	movl	$PROT_READ|PROT_WRITE, %edx
	movl	$MAP_PRIVATE|MAP_ANONYMOUS, %r10d
	movq	$-1, %r8
	xorl	%r9d, %r9d
	movl	$SYS_mmap, %eax
	syscall
	testq	%rax, %rax
	js	settle
	movq	%rax, %r13
	xorl	%ebp, %ebp
	movq	%r13, %rdi
	movl	$8, %esi
	movl	$SYS_rt_sigpending, %eax
	syscall
	movq	mask(%rip), %r14
	notq	%r14
	andq	(%r13), %r14
4:	bsfq	%r14, %rdi
	jz	5f
	btrq	%rdi, %r14
	incl	%edi
	xorl	%esi, %esi
	leaq	8(%r13), %rdx
	movl	$8, %r10d
	movl	$SYS_rt_sigaction, %eax
	syscall
	cmpq	$1, 8(%r13)
	jbe	4b
	testl	$SA_RESTART, 16(%r13)
	setz	%bpl
5:	movq	%r13, %rdi
	movl	$4096, %esi
	movl	$SYS_munmap, %eax
	syscall
	testl	%ebp, %ebp
	jz	settle
ask:	xorl	%edi, %edi
	xorl	%esi, %esi
	leaq	zero(%rip), %rdx
	leaq	mask(%rip), %r10
	movl	$8, %r8d
	movl	$SYS_ppoll, %eax
	syscall
asked:	testl	%eax, %eax
	setnz	%r15b

# Flags, mask, registers, and off. No instruction after popf changes flags.
settle:	leaq	flags(%rip), %rsp
	popfq
	movq	sp(%rip), %rsp
	movl	$SYS_rt_sigprocmask, %eax
	movl	$SIG_SETMASK, %edi
	leaq	mask(%rip), %rsi
	movl	$0, %edx
	movl	$8, %r10d
	syscall
settled:

# A handler may have run in the call before, and have been interrupted itself for long. Now nothing will return to the
# block any more.
	movq	shared(%rip), %rcx
	jrcxz	1f
	movl	$0, busy(%rip)
1:	movq	bx(%rip), %rbx
	movq	dx(%rip), %rdx
	movq	si(%rip), %rsi
	movq	di(%rip), %rdi
	movq	bp(%rip), %rbp
	movq	r8_(%rip), %r8
	movq	r9_(%rip), %r9
	movq	r10_(%rip), %r10
	movq	r11_(%rip), %r11
	movq	r12_(%rip), %r12
	movq	r13_(%rip), %r13
	movq	r14_(%rip), %r14
	movq	%r15, %rcx
chosen:	movq	r15_(%rip), %r15
	jrcxz	to_restart
to_return:
	movq	cx(%rip), %rcx
	movq	ax_return(%rip), %rax
	jmp	*ip_return(%rip)
to_restart:
	movq	cx(%rip), %rcx
	movq	ax_restart(%rip), %rax
	jmp	*ip_restart(%rip)
code_end:

# The state. remote fills it in.
	.balign	8
state:
magic:		.quad	0		# marks a block of ours
sp:		.quad	0
flags:		.quad	0
bx:		.quad	0
cx:		.quad	0
dx:		.quad	0
si:		.quad	0
di:		.quad	0
bp:		.quad	0
r8_:		.quad	0
r9_:		.quad	0
r10_:		.quad	0
r11_:		.quad	0
r12_:		.quad	0
r13_:		.quad	0
r14_:		.quad	0
r15_:		.quad	0
ip_restart:	.quad	0
ax_restart:	.quad	0
ip_return:	.quad	0
ax_return:	.quad	0
orig_ax:	.quad	0		# for whoever finds a thread that has not come back yet
ax:		.quad	0
mask:		.quad	0
all_signals:	.quad	-1
zero:		.quad	0		# a timespec of no time
		.quad	0
shared:		.quad	0		# the scratch area, 0 in the boot block
area:		.quad	1		# in the boot block: the scratch area; else nothing a call returns
area_length:	.quad	0
boot_unmap:	.quad	0		# elsewhere: unmap in the boot block
policy:		.long	0
inside:		.long	0		# the thread may use the descriptors in the scratch area
busy:		.long	0		# the thread has not left the block for good
apart:		.long	0		# the thread never uses the descriptors
state_end:

# What follows is only in blocks in the scratch area.

# Runs a table of system calls. An entry is 64 bytes: number, descriptor slot, six arguments, result.
run:	movq	shared(%rip), %rbx
	movq	table(%rip), %r12
	movl	count(%rip), %r13d
next:	movl	(%r12), %eax
	movq	8(%r12), %rdi
	movq	16(%r12), %rsi
	movq	24(%r12), %rdx
	movq	32(%r12), %r10
	movq	40(%r12), %r8
	movq	48(%r12), %r9
	syscall
	movq	%rax, 56(%r12)

# A call whose result is a descriptor notes it where the way back closes it; a close takes it off again.
	movl	4(%r12), %ecx
	testl	%ecx, %ecx
	jz	8f
	cmpl	$SYS_close, (%r12)
	jne	7f
	movl	$-1, %eax
7:	movl	%eax, shared_fds - 4(%rbx, %rcx, 4)
8:	addq	$64, %r12
	decl	%r13d
	jz	done

# A long table looks after each call whether the engine is still there, or wants it to stop.
	cmpl	$0, bulk(%rip)
	je	next
	movl	shared_park(%rbx), %edi
	leaq	message(%rip), %rsi
	movl	$8, %edx
	movl	$MSG_DONTWAIT, %r10d
	xorl	%r8d, %r8d
	xorl	%r9d, %r9d
	movl	$SYS_recvfrom, %eax
	syscall
	testq	%rax, %rax
	js	next
	jz	restart

done:	movl	%r13d, left(%rip)
	movl	shared_park(%rbx), %edi
	leaq	name(%rip), %rsi
	movl	$8, %edx
	movl	$MSG_NOSIGNAL, %r10d
	xorl	%r8d, %r8d
	xorl	%r9d, %r9d
	movl	$SYS_sendto, %eax
	syscall

# Waits for the word to run the table again. The end of the file is the end of the engine.
park:	movl	shared_park(%rbx), %edi
	leaq	message(%rip), %rsi
	movl	$8, %edx
	movl	$SYS_read, %eax
	syscall
	cmpq	$-EINTR, %rax
	je	park
	cmpq	$8, %rax
	jne	restart
	cmpq	$1, message(%rip)
	jne	park
	jmp	run
run_end:

	.balign	8
job:
table:		.quad	0
count:		.long	0
bulk:		.long	0
name:		.quad	0		# what the message after a table says: which block this is
message:	.quad	0
left:		.long	0		# how many entries of the table were not run
		.long	0
block_end:
