//go:build amd64

package threads

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

const (
	stackDisabled = 2 // SS_DISABLE
	sectionAt     = 8 // of rseq_cs in struct rseq
	robustSize    = 24
)

// Membarrier registers an address space for what membarrier(2) it was registered for. The kernel makes that cheap as long as
// there is one thread.
func Membarrier(t *apply.Task) error {
	if t.Space == nil {
		return nil
	}
	for mask := t.Membarrier; mask != 0; mask &= mask - 1 {
		command := uint32(1) << bits.TrailingZeros32(mask)
		t.Batch.Do(fmt.Sprintf("membarrier command %#x", command), unix.SYS_MEMBARRIER, apply.Num(command))
	}
	return nil
}

// Apply gives a thread its name, its alternative stack, and the addresses that the kernel looks at when it ends.
func Apply(th *apply.Thread) error {
	b := &th.Batch
	b.Do("prctl(PR_SET_NAME)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_NAME), apply.Text(th.Comm))
	if s := th.AltStack; s.Size > 0 && s.Flags&stackDisabled == 0 {
		b.Try("sigaltstack", tooSmall(s), unix.SYS_SIGALTSTACK, apply.Words(s.Base, uint64(s.Flags), s.Size), apply.Num(0))
	}
	if th.TimerSlack != nil && *th.TimerSlack != 0 { // 0 would set the default
		b.Do("prctl(PR_SET_TIMERSLACK)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_TIMERSLACK), apply.Num(*th.TimerSlack))
	}
	b.Do("set_tid_address", unix.SYS_SET_TID_ADDRESS, apply.Num(th.ClearTID))
	if l := th.RobustList; l.Head != 0 {
		if l.Len != robustSize {
			return fmt.Errorf("%s: a robust list of %d bytes, the kernel takes %d only: %w", th.Where(), l.Len, robustSize, unix.EINVAL)
		}
		b.Do("set_robust_list", unix.SYS_SET_ROBUST_LIST, apply.Num(l.Head), apply.Num(l.Len))
	}
	return nil
}

// tooSmall says why a kernel does not take an alternative stack.
func tooSmall(s snapshot.AltStack) func(uint64, error) error {
	return func(_ uint64, err error) error {
		if errors.Is(err, unix.ENOMEM) {
			err = fmt.Errorf("a stack of %d bytes is too small for the registers of this processor: %w", s.Size, err)
		}
		return err
	}
}

// DeathSignal sets the signal that a thread gets when its parent ends. Whatever changes credentials clears it, so it comes after
// them. The root goes without: its parent is now the thread that restores it, and would end it with itself.
func DeathSignal(th *apply.Thread) error {
	switch {
	case th.DeathSig == 0:
	case th.Task.Parent == 0:
		th.Task.Tree.Note("%s: it is not to get signal %d for its parent's death any more (PR_SET_PDEATHSIG): it has another parent", th.Where(), th.DeathSig)
	default:
		th.Batch.Do("prctl(PR_SET_PDEATHSIG)", unix.SYS_PRCTL, apply.Num(unix.PR_SET_PDEATHSIG), apply.Num(th.DeathSig))
	}
	return nil
}

// Register registers the rseq area of a thread. The kernel writes to it from then on, and takes a critical section out of it
// when it is registered, and again at each of our own system calls.
func Register(th *apply.Thread) error {
	q := th.Rseq
	if q == nil {
		return nil
	}
	th.Batch.Try("rseq", func(_ uint64, err error) error {
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("an area of %d bytes at %#x is not what this kernel takes: %w", q.Size, q.Area, err)
		}
		return err
	}, unix.SYS_RSEQ, apply.Num(q.Area), apply.Num(q.Size), apply.Num(0), apply.Num(q.Signature))
	return nil
}

// Section puts a thread back into the critical section that it was in. Nothing but the thread itself may be executed in it from
// here on.
func Section(th *apply.Thread) error {
	if th.Rseq == nil || th.Rseq.Section == nil || *th.Rseq.Section == 0 {
		return nil
	}
	if err := th.Task.Remote.Write(th.Rseq.Area+sectionAt, binary.LittleEndian.AppendUint64(nil, *th.Rseq.Section)); err != nil {
		return fmt.Errorf("%s: its rseq section: %w", th.Where(), err)
	}
	return nil
}
