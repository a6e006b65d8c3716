package linux

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ptrace requests and options, from include/uapi/linux/ptrace.h.
const (
	ptracePoke          = 5
	ptraceCont          = 7
	ptraceDetach        = 17
	ptraceSyscall       = 24
	ptraceSetOptions    = 0x4200
	ptraceGetRegSet     = 0x4204
	ptraceSetRegSet     = 0x4205
	ptraceSeize         = 0x4206
	ptraceInterrupt     = 0x4207
	ptraceListen        = 0x4208
	ptracePeekSiginfo   = 0x4209
	ptraceGetSigmask    = 0x420a
	ptraceSetSigmask    = 0x420b
	ptraceSeccompFilter = 0x420c
	ptraceGetRseq       = 0x420f
	ptraceGetSUD        = 0x4211

	// OptSyscallGood marks syscall stops with bit 7 of the signal, so that a stop the tracer dies at delivers nothing.
	OptSyscallGood = 0x1
	// OptExitKill kills the tracee with its tracer.
	OptExitKill = 0x100000
	// OptSuspendSeccomp suspends the tracee's seccomp filters while it is traced (Linux 4.3, CAP_SYS_ADMIN).
	OptSuspendSeccomp = 0x200000

	// RegSetGeneral is the register set NT_PRSTATUS.
	RegSetGeneral = 1
	// RegSetXState is the register set NT_X86_XSTATE.
	RegSetXState = 0x202
)

// ptrace makes a request. Arguments that are pointers have to be converted in the call itself: the goroutine's stack
// may move before the system call otherwise, and the kernel would write where it was. The directive keeps what they
// point to alive and in place.
//
//go:uintptrescapes
//go:noinline
func (k *Kernel) ptrace(name string, request, tid int, addr, data uintptr) (int, error) {
	if err := k.step(name); err != nil {
		return 0, err
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0)
	return int(n), fail(name, tid, errno)
}

// Seize makes the calling thread the tracer of a task, which goes on running.
func (k *Kernel) Seize(tid int, options uint) error {
	const name = "ptrace(PTRACE_SEIZE)"
	if err := k.step(name); err != nil {
		return err
	}
	// It may take long, while a thread executes a program: the runtime should know.
	_, _, errno := syscall.Syscall6(unix.SYS_PTRACE, ptraceSeize, uintptr(tid), 0, uintptr(options), 0, 0)
	return fail(name, tid, errno)
}

// SetOptions changes the options of a stopped tracee.
func (k *Kernel) SetOptions(tid int, options uint) error {
	_, err := k.ptrace("ptrace(PTRACE_SETOPTIONS)", ptraceSetOptions, tid, 0, uintptr(options))
	return err
}

// Interrupt asks a tracee to stop.
func (k *Kernel) Interrupt(tid int) error {
	_, err := k.ptrace("ptrace(PTRACE_INTERRUPT)", ptraceInterrupt, tid, 0, 0)
	return err
}

// Cont lets a stopped tracee run; sig, if not 0, is the signal to deliver at a signal stop.
func (k *Kernel) Cont(tid int, sig unix.Signal) error {
	_, err := k.ptrace("ptrace(PTRACE_CONT)", ptraceCont, tid, 0, uintptr(sig))
	return err
}

// ContToSyscall lets a stopped tracee run to its next entry to or exit from a system call; sig as for Cont.
func (k *Kernel) ContToSyscall(tid int, sig unix.Signal) error {
	_, err := k.ptrace("ptrace(PTRACE_SYSCALL)", ptraceSyscall, tid, 0, uintptr(sig))
	return err
}

// Listen leaves a tracee in a group stop stopped and reports further events of it.
func (k *Kernel) Listen(tid int) error {
	_, err := k.ptrace("ptrace(PTRACE_LISTEN)", ptraceListen, tid, 0, 0)
	return err
}

// Detach lets a stopped tracee go; sig as for Cont.
func (k *Kernel) Detach(tid int, sig unix.Signal) error {
	_, err := k.ptrace("ptrace(PTRACE_DETACH)", ptraceDetach, tid, 0, uintptr(sig))
	return err
}

// regSet reads or writes a register set. It is ptrace without its directive: all of iov is typed pointers, which are moved with the
// stack, so that registers can be there and make no garbage.
func (k *Kernel) regSet(name string, request, tid, set int, iov *unix.Iovec) error {
	if err := k.step(name); err != nil {
		return err
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), uintptr(set), uintptr(unsafe.Pointer(iov)), 0, 0)
	return fail(name, tid, errno)
}

// RegSet reads a register set of a stopped tracee into buf and returns its length.
func (k *Kernel) RegSet(tid, set int, buf []byte) (int, error) {
	iov := unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	err := k.regSet("ptrace(PTRACE_GETREGSET)", ptraceGetRegSet, tid, set, &iov)
	return int(iov.Len), err
}

// SetRegSet writes a register set of a stopped tracee.
func (k *Kernel) SetRegSet(tid, set int, buf []byte) error {
	iov := unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	return k.regSet("ptrace(PTRACE_SETREGSET)", ptraceSetRegSet, tid, set, &iov)
}

// Regs reads the general registers of a stopped tracee.
func (k *Kernel) Regs(tid int) (unix.PtraceRegs, error) {
	var regs unix.PtraceRegs
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&regs))}
	iov.SetLen(int(unsafe.Sizeof(regs)))
	err := k.regSet("ptrace(PTRACE_GETREGSET)", ptraceGetRegSet, tid, RegSetGeneral, &iov)
	return regs, err
}

// SetRegs writes the general registers of a stopped tracee.
func (k *Kernel) SetRegs(tid int, regs *unix.PtraceRegs) error {
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(regs))}
	iov.SetLen(int(unsafe.Sizeof(*regs)))
	return k.regSet("ptrace(PTRACE_SETREGSET)", ptraceSetRegSet, tid, RegSetGeneral, &iov)
}

// Sigmask reads the set of blocked signals of a stopped tracee, bit N-1 for signal N. For a task inside a call that has
// put on a mask for its own time, as ppoll does, it is the mask that the call will put back (ptrace.c,
// PTRACE_GETSIGMASK).
func (k *Kernel) Sigmask(tid int) (uint64, error) {
	var mask uint64
	_, err := k.ptrace("ptrace(PTRACE_GETSIGMASK)", ptraceGetSigmask, tid, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	return mask, err
}

// SetSigmask writes the set of blocked signals of a stopped tracee.
func (k *Kernel) SetSigmask(tid int, mask uint64) error {
	_, err := k.ptrace("ptrace(PTRACE_SETSIGMASK)", ptraceSetSigmask, tid, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	return err
}

// SiginfoSize is the length of a siginfo_t.
const SiginfoSize = 128

// peekSiginfoArgs is struct ptrace_peeksiginfo_args.
type peekSiginfoArgs struct {
	off   uint64
	flags uint32
	nr    int32
}

// PeekSiginfo returns the signals that are queued for a stopped tracee, or with shared for its process, from the
// off-th, at most 32 of them.
func (k *Kernel) PeekSiginfo(tid int, shared bool, off int) ([][SiginfoSize]byte, error) {
	args := peekSiginfoArgs{off: uint64(off), nr: 32}
	if shared {
		args.flags = 1 // PTRACE_PEEKSIGINFO_SHARED
	}
	infos := make([][SiginfoSize]byte, args.nr)
	n, err := k.ptrace("ptrace(PTRACE_PEEKSIGINFO)", ptracePeekSiginfo, tid, uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&infos[0])))
	if err != nil {
		return nil, err
	}
	return infos[:n], nil
}

// Rseq is a thread's registration for restartable sequences.
type Rseq struct {
	Addr  uint64 // of its struct rseq, 0 if there is none
	Size  uint32
	Sig   uint32 // what stands before an abort handler
	Flags uint32
	_     uint32
}

// Rseq reads a stopped tracee's registration for restartable sequences (Linux 5.13; EIO before).
func (k *Kernel) Rseq(tid int) (Rseq, error) {
	var r Rseq
	_, err := k.ptrace("ptrace(PTRACE_GET_RSEQ_CONFIGURATION)", ptraceGetRseq, tid, unsafe.Sizeof(r), uintptr(unsafe.Pointer(&r)))
	return r, err
}

// syscallUserDispatch is struct ptrace_sud_config.
type syscallUserDispatch struct {
	mode, selector, offset, length uint64
}

// HasSyscallDispatch reports whether a stopped tracee has its system calls dispatched to itself by
// PR_SET_SYSCALL_USER_DISPATCH (asked since Linux 6.4; EIO before).
func (k *Kernel) HasSyscallDispatch(tid int) (bool, error) {
	var c syscallUserDispatch
	_, err := k.ptrace("ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG)", ptraceGetSUD, tid, unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)))
	return c.mode != 0, err
}

// SeccompFilter reads the index-th seccomp filter of a stopped tracee, the one installed last being number 0. Past the
// last one it fails with ENOENT. Needs CAP_SYS_ADMIN.
func (k *Kernel) SeccompFilter(tid, index int) ([]unix.SockFilter, error) {
	const name = "ptrace(PTRACE_SECCOMP_GET_FILTER)"
	n, err := k.ptrace(name, ptraceSeccompFilter, tid, uintptr(index), 0)
	if err != nil || n == 0 {
		return nil, err
	}
	program := make([]unix.SockFilter, n)
	_, err = k.ptrace(name, ptraceSeccompFilter, tid, uintptr(index), uintptr(unsafe.Pointer(&program[0])))
	return program, err
}

// Poke writes to the memory of a stopped tracee, whatever the protection of its mappings, eight bytes at a time. It is
// slow; unlike /proc/PID/mem it is not subject to the boot parameter proc_mem.force_override.
func (k *Kernel) Poke(tid int, addr uint64, data []byte) error {
	for len(data) > 0 {
		var word uint64
		n := min(len(data), 8)
		if n < 8 {
			var old [8]byte
			if err := k.ReadMemory(tid, addr, old[:]); err != nil {
				return err
			}
			copy(old[:], data)
			data, n = old[:], 8
		}
		for i := range 8 {
			word |= uint64(data[i]) << (8 * i)
		}
		if _, err := k.ptrace("ptrace(PTRACE_POKEDATA)", ptracePoke, tid, uintptr(addr), uintptr(word)); err != nil {
			return err
		}
		data, addr = data[n:], addr+8
	}
	return nil
}

// WaitTracee looks once whether a task has something to report, and does not wait. It reports 0 when not.
func (k *Kernel) WaitTracee(tid int) (reported int, status uint32, err error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, uintptr(tid), uintptr(unsafe.Pointer(&status)), unix.WALL|unix.WNOHANG, 0, 0, 0)
		if errno != unix.EINTR {
			return int(n), status, fail("wait4", tid, errno)
		}
	}
}

// StopDue looks whether a tracee has stopped and was not waited for yet; it does not wait for it either.
func (k *Kernel) StopDue(tid int) (bool, error) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, tid, &info, unix.WSTOPPED|unix.WNOWAIT|unix.WNOHANG|unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return info.Signo != 0, os.NewSyscallError("waitid", err)
		}
	}
}
