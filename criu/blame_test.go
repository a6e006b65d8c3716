package criu_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// TestProcessToBlame: CRIU answers "no such process" to all of these, or dies of them; only one is gone.
func TestProcessToBlame(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"), testkit.VictimProgram("threads"))
	c := criu.New(&criu.Swrk{Path: testkit.CRIUPath(t)})
	dump := func(pid int) error {
		_, err := c.Dump(t.Context(), criu.DumpOptions{PID: pid, ImagesDir: t.TempDir()})
		return err
	}
	v := testkit.StartVictim(t, "counter")

	t.Run("traced", func(t *testing.T) {
		runtime.LockOSThread() // ptrace knows threads
		defer runtime.UnlockOSThread()
		if err := unix.PtraceSeize(v.Pid); err != nil {
			t.Fatal(err)
		}
		err := dump(v.Pid)
		if errors.Is(err, criu.ErrNoProcess) || !errors.Is(err, criu.ErrFailed) || !errors.Is(err, syscall.ESRCH) {
			t.Errorf("a process that is there: %v", err)
		}
		wantText(t, err, fmt.Sprintf("process %d is traced by process %d", v.Pid, os.Getpid()))
		if err := unix.PtraceInterrupt(v.Pid); err != nil {
			t.Fatal(err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(v.Pid, &status, unix.WALL, nil); err != nil {
			t.Fatal(err)
		}
		if err := unix.PtraceDetach(v.Pid); err != nil {
			t.Fatal(err)
		}
		counts(t, v)
	})

	t.Run("thread", func(t *testing.T) {
		v := testkit.StartVictim(t, "threads")
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", v.Pid))
		if err != nil || len(tasks) < 2 {
			t.Fatalf("%d threads, %v", len(tasks), err)
		}
		var tid int
		if _, err := fmt.Sscan(tasks[len(tasks)-1].Name(), &tid); err != nil {
			t.Fatal(err)
		}
		err = dump(tid)
		if errors.Is(err, criu.ErrNoProcess) {
			t.Errorf("a thread that is there: %v", err)
		}
		wantText(t, err, fmt.Sprintf("%d is a thread of process %d", tid, v.Pid))
	})

	t.Run("zombie", func(t *testing.T) {
		if err := syscall.Kill(v.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, v.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		err := dump(v.Pid)
		if !errors.Is(err, criu.ErrNoProcess) {
			t.Errorf("a process that has ended: %v", err)
		}
		wantText(t, err, fmt.Sprintf("process %d has ended", v.Pid), fmt.Sprintf("process %d, ", os.Getpid()))
	})

	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	err := dump(v.Pid)
	if !errors.Is(err, criu.ErrNoProcess) {
		t.Errorf("a process that is gone: %v", err)
	}
}
