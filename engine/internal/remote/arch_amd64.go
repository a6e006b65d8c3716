package remote

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
)

// maxUser is the end of the address space of a process with four levels of page tables.
const maxUser = 0x7ffffffff000

// What a system call that was interrupted returns inside the kernel (include/linux/errno.h).
const (
	restartSys   = -512 // restarted, or EINTR when a handler without SA_RESTART runs
	restartNoInt = -513 // always restarted
	restartNoHnd = -514 // restarted, or EINTR when a handler runs
	restartBlock = -516 // restarted by restart_syscall, or EINTR when a handler runs
)

// checkRegs refuses threads that the block cannot bring back.
func checkRegs(r *ptrace.Regs) error {
	const (
		userCode64 = 0x33
		trapFlag   = 0x100
	)
	if r.Cs != userCode64 {
		return fmt.Errorf("%w: it runs 32-bit code (cs %#x)", ErrRefused, r.Cs)
	}
	if r.Eflags&trapFlag != 0 {
		return fmt.Errorf("%w: it single-steps itself", ErrRefused)
	}
	return nil
}

// bootBytes returns the boot block for a thread: the part of a block that brings it back.
func (th *Thread) bootBytes(a *area) []byte {
	b := th.Tracer().Room(blkBlockSize)
	th.putState(b)
	binary.LittleEndian.PutUint64(b[blkArea:], a.start)
	binary.LittleEndian.PutUint64(b[blkAreaLength:], a.length)
	return b[:blkStateEnd]
}

// putBlock writes the block of a thread in the scratch area.
func (th *Thread) putBlock(b []byte, inside bool) {
	th.putState(b)
	binary.LittleEndian.PutUint64(b[blkShared:], th.p.host.area.start)
	binary.LittleEndian.PutUint64(b[blkBootUnmap:], th.p.host.boot+blkUnmap)
	binary.LittleEndian.PutUint64(b[blkName:], uint64(th.index))
	if th.apart {
		b[blkApart] = 1
	}
	if inside {
		copy(b[blkInside:], th.insideWords(1))
	}
}

// insideWords are the values of the words inside and busy.
func (th *Thread) insideWords(v byte) []byte {
	inside := v
	if th.apart {
		inside = 0
	}
	return []byte{inside, 0, 0, 0, v, 0, 0, 0}
}

// putState writes a block with the state of a thread to go back to.
func (th *Thread) putState(b []byte) {
	clear(b[copy(b, blockCode):])
	r := &th.Regs
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	for _, f := range []struct {
		at int
		v  uint64
	}{
		{blkMagic, blockMagic}, {blkSp, r.Rsp}, {blkFlags, r.Eflags}, {blkBx, r.Rbx}, {blkCx, r.Rcx}, {blkDx, r.Rdx},
		{blkSi, r.Rsi}, {blkDi, r.Rdi}, {blkBp, r.Rbp}, {blkR8, r.R8}, {blkR9, r.R9}, {blkR10, r.R10}, {blkR11, r.R11},
		{blkR12, r.R12}, {blkR13, r.R13}, {blkR14, r.R14}, {blkR15, r.R15}, {blkOrigAx, r.Orig_rax}, {blkAx, r.Rax},
		{blkMask, th.Mask},
	} {
		put(f.at, f.v)
	}
	const syscallLength = 2
	ipRestart, axRestart, axReturn, policy := r.Rip, r.Rax, r.Rax, uint32(blkPolicyNone)
	if int64(r.Orig_rax) >= 0 {
		back := true
		axRestart, axReturn = r.Orig_rax, errnoResult(unix.EINTR)
		switch int64(r.Rax) {
		case restartSys:
			policy = blkPolicyAction
		case restartNoInt:
		case restartNoHnd:
			policy = blkPolicyEintr
		case restartBlock:
			policy, axRestart = blkPolicyEintr, unix.SYS_RESTART_SYSCALL
		default:
			back = false
			axRestart, axReturn = r.Rax, r.Rax
		}
		if back {
			ipRestart -= syscallLength
		}
	}
	put(blkIpRestart, ipRestart)
	put(blkAxRestart, axRestart)
	put(blkIpReturn, r.Rip)
	put(blkAxReturn, axReturn)
	binary.LittleEndian.PutUint32(b[blkPolicy:], policy)
}

func errnoResult(e unix.Errno) uint64 { return uint64(-int64(e)) }

// doorRegs are the registers that put a thread at the door of a block.
func (th *Thread) doorRegs(block uint64) ptrace.Regs {
	r := th.Regs
	r.Rip = block + blkDoor + 2
	return r
}

// codeRegs are the registers that let a thread run code in its block. No system call is to be restarted for them.
func (th *Thread) codeRegs(addr uint64) ptrace.Regs {
	r := th.Regs
	r.Orig_rax = ^uint64(0)
	r.Rax = 0
	r.Rip = addr
	return r
}

// callRegs are the registers that let a thread make one system call.
func (th *Thread) callRegs(block uint64, c *Call) ptrace.Regs {
	r := th.codeRegs(block + blkCall)
	r.Rax = uint64(c.Nr)
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5]
	return r
}

// comeBack lets a thread that is on its way back in a block that an engine has left go on until nothing of the way is
// left but the registers, and sets those.
func (th *Thread) comeBack() error {
	const stops = 1000 // a handler that runs on the way makes system calls of its own
	for range stops {
		if err := th.toSyscallStop(); err != nil {
			return err
		}
		r, err := th.Thread.Regs()
		if err != nil {
			return err
		}
		addr := th.p.oldBlock(r.Rip)
		if addr == 0 || r.Rip != addr+blkSettled || r.Rax != 0 {
			continue
		}
		state := make([]byte, blkStateEnd)
		if err := th.p.Read(addr, state); err != nil {
			return err
		}
		get := func(at int) uint64 { return binary.LittleEndian.Uint64(state[at:]) }
		restart := r.R15 == 0
		r.Orig_rax = ^uint64(0)
		r.Rsp, r.Eflags, r.Rbx, r.Rcx, r.Rdx, r.Rsi = get(blkSp), get(blkFlags), get(blkBx), get(blkCx), get(blkDx), get(blkSi)
		r.Rdi, r.Rbp, r.R8, r.R9, r.R10, r.R11 = get(blkDi), get(blkBp), get(blkR8), get(blkR9), get(blkR10), get(blkR11)
		r.R12, r.R13, r.R14, r.R15 = get(blkR12), get(blkR13), get(blkR14), get(blkR15)
		r.Rip, r.Rax = get(blkIpReturn), get(blkAxReturn)
		if restart {
			r.Rip, r.Rax = get(blkIpRestart), get(blkAxRestart)
		}
		if err := th.SetRegs(&r); err != nil {
			return err
		}
		if addr != th.p.bootAt {
			if err := th.p.Write(addr+blkBusy, make([]byte, 4)); err != nil {
				return err
			}
		}
		return th.Halt()
	}
	return fmt.Errorf("task %d: %w: it does not come back from where an engine that was killed has left it", th.TID, ErrRefused)
}

func callResult(r *ptrace.Regs) uint64 { return r.Rax }

// waitOn has a call made again that our own stop has ended with EINTR. There are some that the kernel does not restart by itself,
// not even where no handler runs (signal(7): "Interruption of system calls by stop signals"). Those that wait without bound
// can go on as if nothing had been. Those with a timeout are left alone: nobody knows how much of it is left, and whoever gets
// EINTR works that out.
func (th *Thread) waitOn() error {
	r := &th.Regs
	if th.Stop.Kind != ptrace.EventStop || r.Rax != errnoResult(unix.EINTR) || !waitsUnbound(r) {
		return nil
	}
	r.Rax = ^uint64(-restartNoHnd - 1) // EINTR, where a handler runs after all
	return th.SetRegs(r)
}

// waitsUnbound reports whether registers are of a call that waits without a timeout and that the kernel does not restart.
func waitsUnbound(r *ptrace.Regs) bool {
	switch int64(r.Orig_rax) {
	case unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT:
		return int32(r.R10) < 0
	case unix.SYS_EPOLL_PWAIT2, unix.SYS_SEMTIMEDOP:
		return r.R10 == 0
	case unix.SYS_RT_SIGTIMEDWAIT:
		return r.Rdx == 0
	case unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS:
		return r.R8 == 0
	case unix.SYS_SEMOP:
		return true
	}
	return false
}

// abortRseq ends a restartable sequence that the thread is in, as the kernel does before it lets a thread go on
// elsewhere (kernel/rseq.c): it goes on at the sequence's abort handler. Later the kernel could no longer tell, since
// our code is outside the sequence.
func (th *Thread) abortRseq() error {
	conf, err := th.p.kernel.Rseq(th.TID)
	if err != nil || conf.Addr == 0 {
		if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) {
			return nil // the kernel cannot tell (before 5.13)
		}
		return err
	}
	const sequenceField = 8 // of struct rseq: rseq_cs
	var word [8]byte
	if err := th.p.Read(conf.Addr+sequenceField, word[:]); err != nil {
		return nil //nolint:nilerr // the kernel will deal with a bad registration in its own way
	}
	sequence := binary.LittleEndian.Uint64(word[:])
	if sequence == 0 {
		return nil
	}
	var cs [32]byte // struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip
	if err := th.p.Read(sequence, cs[:]); err != nil {
		return nil //nolint:nilerr // as above
	}
	start, length := binary.LittleEndian.Uint64(cs[8:]), binary.LittleEndian.Uint64(cs[16:])
	if th.Regs.Rip-start >= length {
		return nil
	}
	th.Regs.Rip = binary.LittleEndian.Uint64(cs[24:])
	return th.SetRegs(&th.Regs)
}
