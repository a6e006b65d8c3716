//go:build amd64

package remote

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/testkit"
)

// TestRun drives a victim through one whole visit and lets it check itself.
func TestRun(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	v := testkit.StartVictim(t, "counter")
	before := procText(t, v.Pid)
	err := ptrace.Run(t.Context(), ptrace.Options{}, func(tr *ptrace.Tracer) error {
		p, err := Freeze(tr, v.Pid)
		if err != nil {
			return err
		}
		err = p.Enter()
		if err == nil {
			calls := []Call{NewCall(unix.SYS_GETPID), NewCall(unix.SYS_GETTID), NewCall(unix.SYS_CLOSE, 12345)}
			for range 3 {
				if err = p.Run(calls); err != nil {
					break
				}
				if calls[0].Ret != uint64(v.Pid) || calls[1].Ret != uint64(v.Pid) {
					t.Errorf("getpid and gettid in process %d return %d and %d", v.Pid, calls[0].Ret, calls[1].Ret)
				}
				if got := calls[2].Err(); !errors.Is(got, unix.EBADF) {
					t.Errorf("close of a descriptor that is not there: %v", got)
				}
			}
		}
		t.Logf("%d stops", tr.Stops())
		if rerr := p.Release(); rerr != nil {
			t.Error(rerr)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := procText(t, v.Pid); after != before {
		t.Errorf("the process before:\n%s\nand after:\n%s", before, after)
	}
	v.MustVerify()
}
