package ptrace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// A waiter waits for a line, and says then that it goes on.
type waiter struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWaiters(t *testing.T, n int) (all []*waiter) {
	t.Helper()
	testkit.Need(t, testkit.Root)
	// They are the children of the thread that starts them, and stay that only as long as it lives: let it not be the next tracer.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	for range n {
		w := &waiter{cmd: exec.Command("/bin/sh", "-c", "echo ready; read x; echo gone on")}
		in, err := w.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := w.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.in, w.out = in, bufio.NewReader(out)
		all = append(all, w)
	}
	for _, w := range all {
		if line, err := w.out.ReadString('\n'); err != nil || line != "ready\n" {
			t.Fatalf("it says %q, %v", line, err)
		}
	}
	return all
}

// end waits for the end of a waiter: whether it has been killed, and whether it has gone on before.
func (w *waiter) end(t *testing.T) (killed, wentOn bool) {
	t.Helper()
	said, err := io.ReadAll(w.out)
	if err != nil {
		t.Fatal(err)
	}
	err = w.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		ws, ok := exit.Sys().(syscall.WaitStatus)
		killed = ok && ws.Signaled() && ws.Signal() == unix.SIGKILL
	}
	if err != nil && !killed {
		t.Fatal(err)
	}
	return killed, strings.Contains(string(said), "gone on")
}

// hold stops the waiters, when they have something to go on with, and does something before the tracer ends without having let
// them go.
func hold(t *testing.T, k *linux.Kernel, all []*waiter, do func(tr *Tracer, pids []int) error) error {
	t.Helper()
	return Run(t.Context(), Options{Kernel: k}, func(tr *Tracer) error {
		var pids []int
		for _, w := range all {
			th, err := tr.Seize(w.cmd.Process.Pid)
			if err != nil {
				return err
			}
			if err := th.Interrupt(); err != nil {
				return err
			}
			if _, err := th.Settle(); err != nil {
				return err
			}
			if _, err := w.in.Write([]byte("\n")); err != nil {
				return err
			}
			pids = append(pids, th.TID)
		}
		return do(tr, pids)
	})
}

// check says how many of the waiters are to have been killed, and that none of those went on.
func check(t *testing.T, all []*waiter, killed int) {
	t.Helper()
	n := 0
	for _, w := range all {
		dead, wentOn := w.end(t)
		if dead {
			n++
		}
		if dead == wentOn {
			t.Errorf("a process was killed: %v; it went on: %v", dead, wentOn)
		}
	}
	if n != killed {
		t.Errorf("%d of %d processes were killed, should be %d", n, len(all), killed)
	}
}

// Who is tied to a tracer dies with it and does not go on before; who was untied goes on.
func TestTie(t *testing.T) {
	const processes, rounds = 5, 20
	for range rounds {
		all := startWaiters(t, processes)
		if err := hold(t, nil, all, (*Tracer).Tie); err != nil {
			t.Fatal(err)
		}
		check(t, all, processes)

		all = startWaiters(t, processes)
		err := hold(t, nil, all, func(tr *Tracer, pids []int) error { return errors.Join(tr.Tie(pids), tr.Untie()) })
		if err != nil {
			t.Fatal(err)
		}
		check(t, all, 0)
	}
}

// Where a step of Tie fails, nobody is tied; where Untie fails, all still are.
func TestTieFails(t *testing.T) {
	const processes = 3
	injected := errors.New("injected")
	for step := 1; ; step++ {
		all, steps := startWaiters(t, processes), 0
		tied := false
		counted := -1 << 31 // when the processes are held
		k := &linux.Kernel{Step: func(call string) error {
			if counted++; counted == step {
				return fmt.Errorf("%w at step %d, %s", injected, step, call)
			}
			return nil
		}}
		err := hold(t, k, all, func(tr *Tracer, pids []int) error {
			counted = 0
			if err := tr.Tie(pids); err != nil {
				return err
			}
			tied = true
			err := tr.Untie()
			steps = counted
			return err
		})
		if err == nil {
			check(t, all, 0)
			if t.Logf("%d steps", steps); steps >= step {
				t.Errorf("step %d failed, and nobody noticed", step)
			}
			return
		}
		if !errors.Is(err, injected) {
			t.Fatal(err)
		}
		if tied {
			check(t, all, processes)
		} else {
			check(t, all, 0)
		}
	}
}

// Where there are not descriptors enough, this is said, and nobody is tied.
func TestTieWithoutDescriptors(t *testing.T) {
	const processes = 3
	all := startWaiters(t, processes)
	err := hold(t, nil, all, func(tr *Tracer, pids []int) error {
		names, err := linux.ReadProcDir("/proc/thread-self/fd")
		if err != nil {
			return err
		}
		var old unix.Rlimit
		highest := 0
		for _, name := range names {
			var n int
			if _, err := fmt.Sscan(name, &n); err != nil {
				return err
			}
			highest = max(highest, n)
		}
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &old); err != nil {
			return err
		}
		// Room for the pipe, and for some of the ends that are to stay.
		low := unix.Rlimit{Cur: uint64(highest) + 3, Max: old.Max}
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &low, nil); err != nil {
			return err
		}
		defer func() { _ = unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil) }()
		return tr.Tie(pids)
	})
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("got %v", err)
	}
	check(t, all, 0)
}

// User ids alone decide who may be killed, as for kill(2) without a capability.
func TestMayKill(t *testing.T) {
	for _, tc := range []struct {
		uid, euid uint32
		to        proc.IDs
		want      bool
	}{
		{1, 1, proc.IDs{Real: 1, Effective: 1, Saved: 1}, true},
		{1, 1, proc.IDs{Real: 2, Effective: 1, Saved: 2}, false},
		{1, 1, proc.IDs{Real: 2, Effective: 2, Saved: 1}, true},
		{2, 1, proc.IDs{Real: 2, Effective: 2, Saved: 2}, true},
		{0, 0, proc.IDs{Real: 2, Effective: 2, Saved: 2}, false},
	} {
		if got := mayKill(tc.uid, tc.euid, tc.to); got != tc.want {
			t.Errorf("users %d, %d to %v: %v", tc.uid, tc.euid, tc.to, got)
		}
	}
}
