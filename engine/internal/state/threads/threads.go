//go:build amd64

package threads

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// CollectStopped reads what ptrace and /proc tell of a thread, before the process is entered: requests of ptrace are for
// stopped threads.
func CollectStopped(k *linux.Kernel, th *remote.Thread, dir proc.Dir, s *snapshot.Thread) error {
	s.TID = th.TID
	var err error
	if s.Comm, err = dir.Comm(); err != nil {
		return err
	}
	if s.X86, err = registers(th); err != nil {
		return err
	}
	if s.RobustList, s.RobustLength, err = k.RobustList(th.TID); err != nil {
		return err
	}
	r, err := k.Rseq(th.TID)
	if err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	s.Rseq = snapshot.Rseq{Addr: r.Addr, Size: r.Size, Signature: r.Sig}
	attr, err := unix.SchedGetAttr(th.TID, 0)
	if err != nil {
		return fmt.Errorf("task %d: sched_getattr: %w", th.TID, err)
	}
	s.Policy, s.Nice, s.Priority = attr.Policy, attr.Nice, attr.Priority
	return nil
}

// Collect asks what only the thread itself can tell.
func Collect(p *remote.Process, th *remote.Thread, s *snapshot.Thread) error {
	at, _ := th.Data()
	const prGetTIDAddress = 40
	calls := []remote.Call{
		remote.NewCall(unix.SYS_SIGALTSTACK, 0, at),
		remote.NewCall(unix.SYS_PRCTL, prGetTIDAddress, at+24),
		remote.NewCall(unix.SYS_PRCTL, unix.PR_GET_PDEATHSIG, at+32),
	}
	if err := errors.Join(th.Run(calls), remote.Must(calls)); err != nil {
		return err
	}
	var b [40]byte
	if err := p.Read(at, b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	s.AltStack = snapshot.AltStack{SP: le.Uint64(b[:]), Flags: le.Uint32(b[8:]), Size: le.Uint64(b[16:])}
	s.ClearTID = le.Uint64(b[24:])
	s.PdeathSig = le.Uint32(b[32:])
	return nil
}

// registers are those that the thread will go on with. A system call that was interrupted is restarted by going back to
// the instruction; one that continues by restart_syscall fails with EINTR instead, since what it continues with is in
// the kernel only.
func registers(th *remote.Thread) (*snapshot.X86, error) {
	r := th.Regs
	if int64(r.Orig_rax) >= 0 {
		const (
			restartSys, restartNoInt, restartNoHand, restartBlock = -512, -513, -514, -516
			syscallLength                                         = 2
		)
		switch int64(r.Rax) {
		case restartSys, restartNoInt, restartNoHand:
			r.Rax = r.Orig_rax
			r.Rip -= syscallLength
		case restartBlock:
			eintr := int64(unix.EINTR)
			r.Rax = uint64(-eintr)
		}
	}
	x := &snapshot.X86{
		R15: r.R15, R14: r.R14, R13: r.R13, R12: r.R12, BP: r.Rbp, BX: r.Rbx, R11: r.R11, R10: r.R10, R9: r.R9, R8: r.R8,
		AX: r.Rax, CX: r.Rcx, DX: r.Rdx, SI: r.Rsi, DI: r.Rdi, OrigAX: r.Orig_rax, IP: r.Rip, CS: r.Cs, Flags: r.Eflags,
		SP: r.Rsp, SS: r.Ss, FSBase: r.Fs_base, GSBase: r.Gs_base, DS: r.Ds, ES: r.Es, FS: r.Fs, GS: r.Gs,
	}
	var err error
	x.XSave, err = th.XState()
	x.Layout = xsaveLayout()
	return x, err
}

// Components of an XSAVE area (Intel SDM, volume 1, 13.1).
const (
	xYMM    = 2
	xOpmask = 5
	xZMM    = 6
	xHi16   = 7
	xPKRU   = 9
)

// xsaveLayout asks the processor (CPUID, leaf 13) where components lie.
func xsaveLayout() (l snapshot.XLayout) {
	for _, i := range []uint32{xYMM, xOpmask, xZMM, xHi16, xPKRU} {
		length, offset, _, _ := cpuid(13, i)
		l[i].Offset, l[i].Length = offset, length
	}
	return l
}

// cpuid executes CPUID.
func cpuid(leaf, sub uint32) (a, b, c, d uint32)

// Encode puts a thread into its core entry.
func Encode(s *snapshot.Thread, c *entry.Core) {
	x := s.X86
	native := entry.RegsMode(1)
	c.Mtype = entry.MarchX86_64
	c.ThreadInfo = &entry.ThreadInfoX86{
		ClearTidAddr: s.ClearTID,
		GPRegs: entry.UserX86Regs{
			R15: x.R15, R14: x.R14, R13: x.R13, R12: x.R12, Bp: x.BP, Bx: x.BX, R11: x.R11, R10: x.R10, R9: x.R9, R8: x.R8,
			Ax: x.AX, Cx: x.CX, Dx: x.DX, Si: x.SI, Di: x.DI, OrigAx: x.OrigAX, IP: x.IP, CS: x.CS, Flags: x.Flags,
			Sp: x.SP, Ss: x.SS, FSBase: x.FSBase, GsBase: x.GSBase, Ds: x.DS, Es: x.ES, FS: x.FS, Gs: x.GS, Mode: &native,
		},
		FPRegs: encodeXSave(x),
	}
	for i := range 3 { // GDT_ENTRY_TLS_ENTRIES, none of them used by a 64-bit program
		c.ThreadInfo.TLS = append(c.ThreadInfo.TLS, entry.UserDesc{EntryNumber: uint32(12 + i), ReadExecOnly: true, SegNotPresent: true})
	}
	t := c.ThreadCore
	t.FutexRLA, t.FutexRLALen = s.RobustList, uint32(s.RobustLength)
	t.SchedNice, t.SchedPolicy, t.SchedPrio = &s.Nice, &s.Policy, &s.Priority
	t.SAS = &entry.ThreadSAS{SsSp: s.AltStack.SP, SsSize: s.AltStack.Size, SsFlags: s.AltStack.Flags}
	t.PdeathSig = &s.PdeathSig
	t.Comm = &s.Comm
	if s.Rseq.Addr != 0 {
		t.RseqEntry = &entry.Rseq{RseqABIPointer: s.Rseq.Addr, RseqABISize: s.Rseq.Size, Signature: s.Rseq.Signature}
	}
}

func encodeXSave(x *snapshot.X86) entry.UserX86FPRegs {
	le, b := binary.LittleEndian, x.XSave
	words := func(b []byte) (w []uint32) {
		for i := 0; i+4 <= len(b); i += 4 {
			w = append(w, le.Uint32(b[i:]))
		}
		return w
	}
	longs := func(b []byte) (w []uint64) {
		for i := 0; i+8 <= len(b); i += 8 {
			w = append(w, le.Uint64(b[i:]))
		}
		return w
	}
	part := func(i int) []byte {
		l := x.Layout[i]
		if l.Length == 0 || int(l.Offset+l.Length) > len(b) {
			return nil
		}
		return b[l.Offset : l.Offset+l.Length]
	}
	return entry.UserX86FPRegs{
		Cwd: uint32(le.Uint16(b)), Swd: uint32(le.Uint16(b[2:])), Twd: uint32(le.Uint16(b[4:])), Fop: uint32(le.Uint16(b[6:])),
		Rip: le.Uint64(b[8:]), Rdp: le.Uint64(b[16:]), Mxcsr: le.Uint32(b[24:]), MxcsrMask: le.Uint32(b[28:]),
		STSpace: words(b[32:160]), XMMSpace: words(b[160:416]),
		Xsave: &entry.UserX86Xsave{
			XstateBv: le.Uint64(b[512:]), YMMHSpace: words(part(xYMM)), OpmaskReg: longs(part(xOpmask)),
			ZMMUpper: longs(part(xZMM)), Hi16ZMM: longs(part(xHi16)), PKRU: words(part(xPKRU)),
		},
	}
}
