//go:build amd64

package threads

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// ownCgroupSet is the number of the only set of control groups that is told apart; see package origin.
const ownCgroupSet = 1

// Collect reads robust list and rseq area from outside, and asks for the rest.
func Collect(t *collect.Tree) error {
	for th := range t.Threads() {
		s := th.Snapshot
		s.CgroupSet = ownCgroupSet
		head, length, err := t.Kernel.RobustList(th.Remote.TID)
		if err != nil && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		s.RobustList = snapshot.RobustList{Head: head, Len: uint32(length)}
		q, err := t.Kernel.Rseq(th.Remote.TID)
		if err != nil {
			// Before 5.13 nobody can tell, and a thread that has one would go on without it.
			return fmt.Errorf("%s: %w", th.Where(), err)
		}
		if q.Addr != 0 {
			s.Rseq = &snapshot.Rseq{Area: q.Addr, Size: q.Size, Signature: q.Sig}
		}
		status, err := th.Status()
		if err != nil {
			return err
		}
		if status.Seccomp != 0 {
			s.Seccomp = snapshot.SeccompMode(status.Seccomp)
		}
		th.Ask(func(b *collect.Batch) { inside(b, s) })
	}
	return nil
}

func inside(b *collect.Batch, s *snapshot.Thread) {
	const stackSize = 24 // of a stack_t: base, flags, size
	stack, death := b.Room(stackSize), b.Room(8)
	altstack := b.Call(unix.SYS_SIGALTSTACK, 0, stack)
	deathsig := b.Call(unix.SYS_PRCTL, unix.PR_GET_PDEATHSIG, death)
	b.Then(func(r *collect.Results) error {
		if _, err := r.Value(altstack); err != nil {
			return fmt.Errorf("sigaltstack: %w", err)
		}
		if _, err := r.Value(deathsig); err != nil {
			return fmt.Errorf("prctl(PR_GET_PDEATHSIG): %w", err)
		}
		b := r.Data(stack, stackSize)
		// That a thread is on the stack, which its registers tell, is not to be set.
		const onStack = 1
		s.AltStack = snapshot.AltStack{Base: collect.Word(b), Flags: collect.Word32(b[8:]) &^ onStack, Size: collect.Word(b[16:])}
		s.DeathSig = int(collect.Word32(r.Data(death, 4)))
		return nil
	})
}
