# The program that stands between a process that dumps itself and its `criu swrk` (see detach.go). It is assembled with
#   as --64 -o stub.o stub.s && objcopy -O binary -j .text stub.o stub.bin
# and the result is the table in detach_amd64.go; a test does it again and compares.
#
# argv: any name, the program, its arguments. Descriptor 4 is a pipe that gets 8-byte numbers: the pid of the program,
# and minus errno if the program cannot be run.
	.intel_syntax noprefix
	.text
	mov	r12, rsp		# argc, argv, NULL, envp
	mov	eax, 57			# fork
	syscall
	test	rax, rax
	jz	1f
	push	rax			# the pid, or minus errno
	call	2f
	xor	edi, edi
	mov	eax, 60			# exit
	syscall
1:	mov	eax, 112		# setsid: out of the caller's session
	syscall
	mov	edi, 4
	mov	esi, 2			# F_SETFD
	mov	edx, 1			# FD_CLOEXEC
	mov	eax, 72			# fcntl
	syscall
	mov	rdi, [r12+16]
	lea	rsi, [r12+16]
	mov	rax, [r12]
	lea	rdx, [r12+rax*8+16]
	mov	eax, 59			# execve
	syscall
	push	rax			# minus errno
	call	2f
	mov	edi, 127
	mov	eax, 60			# exit
	syscall
2:	mov	edi, 4			# write(4, the number, 8)
	lea	rsi, [rsp+8]
	mov	edx, 8
	mov	eax, 1
	syscall
	ret
