//go:build amd64

package remote

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/testkit"
)

// A process that executes a program while it is being stopped, from a thread that is not the first, is stopped: before, or where the
// program begins. What is known of the thread is its state then.
func TestFreezeOfWhoExecutes(t *testing.T) {
	for _, threads := range []int{2, 3, 6} {
		t.Run(fmt.Sprintf("%d threads", threads), func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("execs"))
			v := testkit.StartVictim(t, "execs", strconv.Itoa(threads))
			var pid, first, last int
			if _, err := fmt.Sscanf(v.Ask(), "child %d %d", &pid, &first); err != nil {
				t.Fatal(err)
			}
			const visits = 400
			for i := range visits {
				err := ptrace.Run(t.Context(), ptrace.Options{}, func(tr *ptrace.Tracer) error {
					p, err := Freeze(tr, pid)
					if err != nil {
						return err
					}
					return errors.Join(known(p), p.Release())
				})
				if err != nil {
					t.Fatalf("visit %d: %v", i, err)
				}
			}
			if _, err := fmt.Sscanf(v.Ask(), "child %d %d", &pid, &last); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d visits in %d rounds", visits, last-first)
			v.MustVerify()
		})
	}
}

// known checks that what is noted of threads is how they stand.
func known(p *Process) error {
	for _, th := range p.Threads {
		regs, err := th.Thread.Regs()
		if err != nil {
			return err
		}
		if regs != th.Regs {
			return fmt.Errorf("task %d stands at %#x, and is noted to stand at %#x", th.TID, regs.PC(), th.Regs.PC())
		}
		mask, err := th.Sigmask()
		if err != nil {
			return err
		}
		if mask != th.Mask {
			return fmt.Errorf("task %d has the mask %#x, and is noted to have %#x", th.TID, mask, th.Mask)
		}
	}
	return nil
}
