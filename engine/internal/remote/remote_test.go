//go:build amd64

package remote

import (
	"context"
	"errors"
	"os"
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

// A call that ends as the context does leaves the word to stop on the park socket, if the thread that made it was done already and
// another is next. It is not taken for the message that a descriptor comes with.
func TestGiveFileAfterTheEnd(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("threads"))
	v := testkit.StartVictim(t, "threads")
	before := procText(t, v.Pid)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := ptrace.Run(ctx, ptrace.Options{}, func(tr *ptrace.Tracer) error {
		p, err := Freeze(tr, v.Pid)
		if err != nil {
			return err
		}
		err = func() error {
			if err := p.Enter(); err != nil {
				return err
			}
			if err := p.Threads[1].Run([]Call{NewCall(unix.SYS_GETTID)}); err != nil {
				return err
			}
			cancel()
			if err := p.Threads[1].halt(); err != nil {
				return err
			}
			if err := p.send(wordStop); err != nil { // as waitDone does
				return err
			}
			_, err := p.GiveFile(int(os.Stdin.Fd()))
			return err
		}()
		if rerr := p.Release(); rerr != nil {
			t.Error(rerr)
		}
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a descriptor given when the context has ended: %v", err)
	}
	if after := procText(t, v.Pid); after != before {
		t.Errorf("the process before:\n%s\nand after:\n%s", before, after)
	}
	v.MustVerify()
}
