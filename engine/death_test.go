//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// The worker is this test program, started again to dump a victim and to die in the middle of it.
const (
	envPID    = "STASIS_WORKER_PID"    // whom to dump
	envImages = "STASIS_WORKER_IMAGES" // where to
	envStep   = "STASIS_WORKER_STEP"   // die of SIGKILL before the so-maniest call through the kernel's door
	envCall   = "STASIS_WORKER_CALL"   // count these only
	envAfter  = "STASIS_WORKER_AFTER"  // and none before the first of these, of which the worker tells
	envStop   = "STASIS_WORKER_STOP"   // what is restored is left stopped, if this is not empty
	restoring = "restore"              // instead of whom to dump
	begun     = "begun"                // what the worker says when it begins to count
)

func TestMain(m *testing.M) {
	if os.Getenv(envPID) != "" {
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testkit.Main(m)
}

func work() error {
	last, err := strconv.Atoi(os.Getenv(envStep))
	if err != nil {
		return err
	}
	var steps atomic.Int64
	e := New()
	only, after := os.Getenv(envCall), os.Getenv(envAfter)
	e.kernel = &linux.Kernel{Step: func(call string) error {
		if after != "" && call == after {
			after = ""
			fmt.Println(begun)
		}
		if after == "" && (only == "" || call == only) && steps.Add(1) == int64(last) {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // it does not come back
		}
		return nil
	}}
	if os.Getenv(envPID) == restoring {
		_, err = criu.New(e).Restore(context.Background(), criu.RestoreOptions{ImagesDir: os.Getenv(envImages), LeaveStopped: os.Getenv(envStop) != ""})
		return err
	}
	pid, err := strconv.Atoi(os.Getenv(envPID))
	if err != nil {
		return err
	}
	_, err = criu.New(e).Dump(context.Background(), criu.DumpOptions{ImagesDir: os.Getenv(envImages), PID: pid, LeaveRunning: true})
	return err
}

// An engine that is killed in the middle of a dump costs nobody anything: the tree comes back by itself.
func TestDumpIsKilled(t *testing.T) {
	for _, name := range []string{"threads", "tree", "timers", "apart shared", "sharing", "sharing strangers"} {
		t.Run(name, func(t *testing.T) {
			victim := startVictim(t, name)
			killed := 0
			for step := 1; dieAt(t, strconv.Itoa(victim.Pid), t.TempDir(), step); step += 1 + step/8 {
				killed++
			}
			t.Logf("killed %d times", killed)
			if killed < 10 {
				t.Errorf("the dumps had ended before they could be killed")
			}
			victim.MustVerify()
		})
	}
}

// dieAt starts a worker that dies at a step, and reports whether it did.
func dieAt(t *testing.T, what, images string, step int) bool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), envPID+"="+what, fmt.Sprintf("%s=%d", envStep, step), envImages+"="+images)
	output, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			return true
		}
	}
	if err != nil {
		t.Fatalf("the worker that was to die at step %d: %v\n%s", step, err, output)
	}
	return false
}
