//go:build amd64

package threads

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Decode reads a thread from its core entry.
func Decode(tid int, c *entry.Core, s *snapshot.Thread) error {
	if c.Mtype != entry.MarchX86_64 || c.ThreadInfo == nil || c.ThreadCore == nil {
		return fmt.Errorf("core of thread %d: %w: it is not of x86-64", tid, errors.ErrUnsupported)
	}
	r, t := &c.ThreadInfo.GPRegs, c.ThreadCore
	if r.Mode != nil && *r.Mode != entry.RegsModeNative {
		return fmt.Errorf("core of thread %d: %w: it runs 32-bit code", tid, errors.ErrUnsupported)
	}
	s.TID = tid
	s.X86 = &snapshot.X86{
		R15: r.R15, R14: r.R14, R13: r.R13, R12: r.R12, BP: r.Bp, BX: r.Bx, R11: r.R11, R10: r.R10, R9: r.R9, R8: r.R8,
		AX: r.Ax, CX: r.Cx, DX: r.Dx, SI: r.Si, DI: r.Di, OrigAX: r.OrigAx, IP: r.IP, CS: r.CS, Flags: r.Flags,
		SP: r.Sp, SS: r.Ss, FSBase: r.FSBase, GSBase: r.GsBase, DS: r.Ds, ES: r.Es, FS: r.FS, GS: r.Gs,
		Layout: xsaveLayout(),
	}
	if err := decodeXSave(&c.ThreadInfo.FPRegs, s.X86); err != nil {
		return fmt.Errorf("core of thread %d: %w", tid, err)
	}
	s.ClearTID = c.ThreadInfo.ClearTidAddr
	s.RobustList, s.RobustLength = t.FutexRLA, uint64(t.FutexRLALen)
	s.Policy, s.Nice, s.Priority = value(t.SchedPolicy), value(t.SchedNice), value(t.SchedPrio)
	s.PdeathSig, s.Comm = value(t.PdeathSig), value(t.Comm)
	if t.SAS != nil {
		s.AltStack = snapshot.AltStack{SP: t.SAS.SsSp, Flags: t.SAS.SsFlags, Size: t.SAS.SsSize}
	}
	if q := t.RseqEntry; q != nil {
		s.Rseq = snapshot.Rseq{Addr: q.RseqABIPointer, Size: q.RseqABISize, Signature: q.Signature}
		if q.RseqCSPointer != nil && *q.RseqCSPointer != 0 {
			return fmt.Errorf("core of thread %d: %w: it is in a restartable sequence", tid, errors.ErrUnsupported)
		}
	}
	return nil
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// decodeXSave makes an XSAVE area as this processor has it.
func decodeXSave(f *entry.UserX86FPRegs, x *snapshot.X86) error {
	if f.Xsave == nil {
		return fmt.Errorf("%w: it has no XSAVE state", errors.ErrUnsupported)
	}
	const legacy = 576 // the legacy area and the header
	b := make([]byte, legacy)
	le := binary.LittleEndian
	le.PutUint16(b, uint16(f.Cwd))
	le.PutUint16(b[2:], uint16(f.Swd))
	le.PutUint16(b[4:], uint16(f.Twd))
	le.PutUint16(b[6:], uint16(f.Fop))
	le.PutUint64(b[8:], f.Rip)
	le.PutUint64(b[16:], f.Rdp)
	le.PutUint32(b[24:], f.Mxcsr)
	le.PutUint32(b[28:], f.MxcsrMask)
	le.PutUint64(b[512:], f.Xsave.XstateBv)
	var err error
	put32 := func(at, room int, w []uint32) {
		if 4*len(w) > room {
			err = fmt.Errorf("%w: more vector state than this processor has", errors.ErrUnsupported)
			return
		}
		for i, v := range w {
			le.PutUint32(b[at+4*i:], v)
		}
	}
	put32(32, 128, f.STSpace)
	put32(160, 256, f.XMMSpace)
	part := func(i int, w []uint32) {
		l := x.Layout[i]
		if end := int(l.Offset + l.Length); l.Length > 0 && end > len(b) {
			b = append(b, make([]byte, end-len(b))...)
		}
		put32(int(l.Offset), int(l.Length), w)
	}
	halves := func(w []uint64) (h []uint32) {
		for _, v := range w {
			h = append(h, uint32(v), uint32(v>>32))
		}
		return h
	}
	part(xYMM, f.Xsave.YMMHSpace)
	part(xOpmask, halves(f.Xsave.OpmaskReg))
	part(xZMM, halves(f.Xsave.ZMMUpper))
	part(xHi16, halves(f.Xsave.Hi16ZMM))
	part(xPKRU, f.Xsave.PKRU)
	x.XSave = b
	return err
}

// Apply gives a thread that was made what it has beside registers. Restartable sequences come last: from then on the
// kernel looks at the thread's area whenever it returns to it.
func Apply(p *remote.Process, th *remote.Thread, s *snapshot.Thread) error {
	a := p.NewArena()
	a.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, a.Text(s.Comm))
	a.Call(unix.SYS_SET_TID_ADDRESS, s.ClearTID)
	if s.RobustList != 0 {
		a.Call(unix.SYS_SET_ROBUST_LIST, s.RobustList, s.RobustLength)
	}
	const disabled = 2 // SS_DISABLE
	if s.AltStack.Flags&disabled == 0 && s.AltStack.Size != 0 {
		const onStack = 1 // SS_ONSTACK is told, not set
		a.Call(unix.SYS_SIGALTSTACK, a.Words(s.AltStack.SP, uint64(s.AltStack.Flags&^onStack), s.AltStack.Size), 0)
	}
	if s.PdeathSig != 0 {
		a.Call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uint64(s.PdeathSig))
	}
	if s.Rseq.Addr != 0 {
		a.Call(unix.SYS_RSEQ, s.Rseq.Addr, uint64(s.Rseq.Size), 0, uint64(s.Rseq.Signature))
	}
	if err := a.Run(th); err != nil {
		return err
	}
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: s.Policy, Nice: s.Nice, Priority: s.Priority}
	if now, err := unix.SchedGetAttr(th.TID, 0); err == nil && now.Policy == s.Policy && now.Nice == s.Nice && now.Priority == s.Priority {
		return nil
	}
	if err := unix.SchedSetAttr(th.TID, attr, 0); err != nil {
		return fmt.Errorf("task %d: scheduling policy %d, nice %d, priority %d: %w", th.TID, s.Policy, s.Nice, s.Priority, err)
	}
	return nil
}

// ApplyRegisters gives a thread the registers and the mask that it starts with, when it is released.
func ApplyRegisters(th *remote.Thread, s *snapshot.Thread) error {
	x := s.X86
	regs := ptrace.Regs{
		R15: x.R15, R14: x.R14, R13: x.R13, R12: x.R12, Rbp: x.BP, Rbx: x.BX, R11: x.R11, R10: x.R10, R9: x.R9, R8: x.R8,
		Rax: x.AX, Rcx: x.CX, Rdx: x.DX, Rsi: x.SI, Rdi: x.DI, Orig_rax: ^uint64(0), Rip: x.IP, Cs: x.CS, Eflags: x.Flags,
		Rsp: x.SP, Ss: x.SS, Fs_base: x.FSBase, Gs_base: x.GSBase, Ds: x.DS, Es: x.ES, Fs: x.FS, Gs: x.GS,
	}
	if err := th.Halt(); err != nil {
		return err
	}
	xsave, err := th.XState() // as long as the kernel wants it
	if err != nil {
		return err
	}
	clear(xsave)
	copy(xsave, x.XSave)
	return th.Become(regs, s.Mask, xsave)
}
