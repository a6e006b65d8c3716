// Package threads is the state "what the kernel keeps for a thread at addresses that the thread has told it": robust list,
// alternative signal stack, rseq area; and its name and the signal for its parent's death. In images
// it is thread_core of core-TID.img. (The address that is cleared when a thread ends is with the registers there, and package
// regs has it.)
//
//   - Collect reads all of it in one batch per thread; the robust list and the rseq area from outside.
//   - Apply is one batch per thread. DeathSignal comes after the credentials, whose change clears it. Register, of rseq, is the last
//     of all that is done in a thread, since the kernel looks at the area whenever the thread returns to user mode from then on.
//     Section follows when nothing of ours is run in the thread any more. Membarrier is of the process.
package threads

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Encode writes what threads have told the kernel.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for t := range to.Threads(from) {
		e := t.Core.ThreadCore
		e.FutexRLA, e.FutexRLALen = t.RobustList.Head, t.RobustList.Len
		e.SAS = &entry.ThreadSAS{SsSp: t.AltStack.Base, SsSize: t.AltStack.Size, SsFlags: t.AltStack.Flags}
		e.Comm = &t.Comm
		if t.DeathSig != 0 {
			e.PdeathSig = new(uint32(t.DeathSig))
		}
		if q := t.Rseq; q != nil {
			e.RseqEntry = &entry.Rseq{RseqABIPointer: q.Area, RseqABISize: q.Size, Signature: q.Signature, RseqCSPointer: q.Section}
		}
		if t.CgroupSet != 0 {
			e.CGSet = &t.CgroupSet
		}
		if t.Seccomp != snapshot.SeccompOff {
			e.SeccompMode, e.SeccompFilter = new(entry.SeccompMode(t.Seccomp)), t.Filter
			r.Unsupported(t.Image, "a seccomp filter is in force")
		}
	}
}

// Decode reads what threads have told the kernel.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for t := range from.Threads(to) {
		e := t.Core.ThreadCore
		r.Unknown(t.Image, e, e.Unknown)
		t.RobustList = snapshot.RobustList{Head: e.FutexRLA, Len: e.FutexRLALen}
		if s := e.SAS; s != nil {
			r.Unknown(t.Image, s, s.Unknown)
			t.AltStack = snapshot.AltStack{Base: s.SsSp, Size: s.SsSize, Flags: s.SsFlags}
		}
		switch {
		case e.Comm != nil:
			t.Comm = *e.Comm
		case t.Leader:
			t.Comm = t.Task.Comm // CRIU before 3.16 has it there only
		}
		if sig := e.GetPdeathSig(); sig > snapshot.NumSignals {
			r.Damaged(t.Image, "pdeath_sig %d is no signal", sig)
		} else {
			t.DeathSig = int(sig)
		}
		if q := e.RseqEntry; q != nil && q.RseqABIPointer != 0 {
			r.Unknown(t.Image, q, q.Unknown)
			t.Rseq = &snapshot.Rseq{Area: q.RseqABIPointer, Size: q.RseqABISize, Signature: q.Signature, Section: q.RseqCSPointer}
			if q.RseqABISize == 0 || q.RseqABISize > math.MaxUint16 {
				r.Damaged(t.Image, "an rseq area of %d bytes", q.RseqABISize)
			}
		}
		t.CgroupSet = e.GetCGSet()
		decodeSeccomp(t, r)
	}
}

func decodeSeccomp(t images.ThreadOf, r *images.Report) {
	mode := t.Core.ThreadCore.GetSeccompMode()
	if tc := t.Core.TC; tc != nil && mode == entry.SeccompModeDisabled {
		mode = tc.GetOldSeccompMode() // CRIU before 3.7
	}
	if mode == entry.SeccompModeDisabled {
		return
	}
	t.Seccomp, t.Filter = snapshot.SeccompMode(mode), t.Core.ThreadCore.SeccompFilter
	r.Unsupported(t.Image, "seccomp, mode %v: not restored by the built-in engine", mode)
}
