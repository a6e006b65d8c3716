package remote

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/testkit"
)

// The kernel tells of the end of a first thread only once all others have been waited for. Whoever waits for it first is told that it
// is gone all the same, and the process, which nobody else can reap until then, is not kept for as long as a stop may take.
func TestFirstThreadOfKilledProcess(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("threads"))
	v := testkit.StartVictim(t, "threads")
	err := ptrace.Run(t.Context(), ptrace.Options{}, func(tr *ptrace.Tracer) error {
		tids, err := taskIDs(v.Pid)
		if err != nil || len(tids) < 2 {
			return errors.Join(err, errors.New("the victim has one thread"))
		}
		var threads []*ptrace.Thread
		for _, tid := range tids {
			th, err := tr.Seize(tid)
			if err != nil {
				return err
			}
			threads = append(threads, th)
		}
		if err := unix.Kill(v.Pid, unix.SIGKILL); err != nil {
			return err
		}
		for _, th := range threads { // the first one first
			if _, err := th.Wait(); !errors.Is(err, ptrace.ErrGone) {
				t.Errorf("thread %d of the killed process: %v, want ErrGone", th.TID, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Error(err)
	}
}
