package regs

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
)

// Results of interrupted system calls that only the kernel sees (include/linux/errno.h).
const (
	restartSys   = -512
	restartNoInt = -513
	restartNoHnd = -514
	restartBlock = -516
)

const syscallLength = 2 // of the instruction

// registers reads the registers of a stopped thread. The layout is that of the threads before.
func registers(th *collect.Thread, layout **snapshot.XLayout) (snapshot.Registers, error) {
	r := th.Remote.Regs
	if int64(r.Orig_rax) >= 0 {
		switch int64(r.Rax) {
		case restartSys, restartNoInt, restartNoHnd:
			r.Rax = r.Orig_rax
			r.Rip -= syscallLength
		case restartBlock:
			// The kernel's note of how to go on with the call is lost with the thread.
			if absolute(&r) {
				r.Rax = r.Orig_rax
				r.Rip -= syscallLength
				break
			}
			r.Rax = ^uint64(unix.EINTR) + 1
		}
	}
	regs := &snapshot.AMD64Registers{
		R15: r.R15, R14: r.R14, R13: r.R13, R12: r.R12, BP: r.Rbp, BX: r.Rbx, R11: r.R11, R10: r.R10, R9: r.R9, R8: r.R8, AX: r.Rax,
		CX: r.Rcx, DX: r.Rdx, SI: r.Rsi, DI: r.Rdi, OrigAX: r.Orig_rax, IP: r.Rip, CS: r.Cs, Flags: r.Eflags, SP: r.Rsp, SS: r.Ss,
		FSBase: r.Fs_base, GSBase: r.Gs_base, DS: r.Ds, ES: r.Es, FS: r.Fs, GS: r.Gs,
	}
	buf, err := th.Remote.XState()
	if err != nil {
		return nil, err
	}
	*layout = Layout(buf, *layout)
	if regs.FPU, err = (*layout).Parse(buf); err != nil {
		return nil, err
	}
	// 64-bit programs have no use for the three slots of the GDT; empty ones are what CRIU writes.
	const firstTLS = 12
	for i := range uint32(3) {
		regs.TLS = append(regs.TLS, snapshot.TLSDescriptor{Entry: firstTLS + i, ReadExecOnly: true, NotPresent: true})
	}
	return regs, nil
}

// absolute reports whether the timeout of a call is an instant, so that the call can be made again as it is: a futex with a bit
// set (pthread_cond_timedwait and others).
func absolute(r *ptrace.Regs) bool {
	const waitBitset, command = 9, 0x7f
	return r.Orig_rax == unix.SYS_FUTEX && r.Rsi&command == waitBitset
}

// Layout returns how this processor lays out the extended state, of which buf is an example: the kernel writes there which
// components it has enabled. Where they are those of a layout that is known, it is that one: a virtual machine takes its time to
// tell of the processor.
func Layout(buf []byte, known *snapshot.XLayout) *snapshot.XLayout {
	const (
		leaf     = 0xd
		features = 464 // where the kernel puts the mask, in the legacy area that the processor leaves alone
	)
	if len(buf) < 576 {
		return &snapshot.XLayout{Size: len(buf), Legacy: true}
	}
	supported, mask := binary.LittleEndian.Uint64(buf[features:]), binary.LittleEndian.Uint32(buf[28:])
	if known != nil && known.Size == len(buf) && known.SupportedBV == supported && known.MXCSRMask == mask {
		return known
	}
	l := &snapshot.XLayout{Size: len(buf), SupportedBV: supported, MXCSRMask: mask}
	for n := uint32(2); n < 64; n++ {
		if l.SupportedBV>>n&1 == 0 {
			continue
		}
		size, offset, _, _ := linux.CPUID(leaf, n)
		l.Len[n], l.Offset[n] = size, offset
	}
	return l
}
