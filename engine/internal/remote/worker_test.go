//go:build amd64

package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// The worker is this test program, started again to visit a victim and to die in the middle of it.
const (
	envPID    = "STASIS_WORKER_PID"    // whom to visit
	envStep   = "STASIS_WORKER_STEP"   // die of SIGKILL before the so-maniest call through the kernel's door
	envSignal = "STASIS_WORKER_SIGNAL" // and before that send a signal, TID:NUMBER
	envRepeat = "STASIS_WORKER_REPEAT" // visit again and again
)

func TestMain(m *testing.M) {
	if os.Getenv(envGoVictim) != "" {
		goVictim()
	}
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
	pid, err := strconv.Atoi(os.Getenv(envPID))
	if err != nil {
		return err
	}
	kernel := &linux.Kernel{}
	if last, err := strconv.Atoi(os.Getenv(envStep)); err == nil {
		steps := 0
		kernel.Step = func(string) error {
			if steps++; steps == last {
				die()
			}
			return nil
		}
	}
	for {
		if err := visit(context.Background(), kernel, pid); err != nil {
			return err
		}
		if os.Getenv(envRepeat) == "" {
			return nil
		}
	}
}

// die sends the signal that the worker was told to send, and dies.
func die() {
	if tid, number, ok := strings.Cut(os.Getenv(envSignal), ":"); ok {
		t, _ := strconv.Atoi(tid)
		n, _ := strconv.Atoi(number)
		if err := unix.Tgkill(atoi(os.Getenv(envPID)), t, syscall.Signal(n)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // it does not come back
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// visit does with a process, and with its children that share its memory, what a dump does: stops them, lets every thread
// make calls, takes descriptors, lets the process write its own memory to a file, and lets it go.
func visit(ctx context.Context, kernel *linux.Kernel, pid int) error {
	return ptrace.Run(ctx, ptrace.Options{Kernel: kernel}, func(tr *ptrace.Tracer) error {
		all, err := freezeAll(tr, pid)
		for _, p := range all {
			if err != nil {
				break
			}
			if err = p.Enter(); err == nil {
				err = exercise(p)
			}
		}
		for _, p := range slices.Backward(all) {
			err = errors.Join(err, p.Release())
		}
		return err
	})
}

// freezeAll stops a process and those of its children that share its memory.
func freezeAll(tr *ptrace.Tracer, pid int) ([]*Process, error) {
	host, err := Freeze(tr, pid)
	if err != nil {
		return nil, err
	}
	all := []*Process{host}
	for _, child := range children(pid) {
		if same, err := tr.Kernel().Same(pid, child, linux.SameVM, 0, 0); err != nil {
			return all, err
		} else if !same {
			continue
		}
		p, err := Freeze(tr, child)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	for _, p := range all[1:] {
		if err := p.Join(host); err != nil {
			return all, err
		}
	}
	return all, nil
}

// children returns the children of a process.
func children(pid int) []int {
	var all []int
	tids, _ := taskIDs(pid)
	for _, tid := range tids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		for _, child := range strings.Fields(string(text)) {
			all = append(all, atoi(child))
		}
	}
	return all
}

func exercise(p *Process) error {
	for _, th := range p.Threads {
		data, _ := th.Data()
		if th.apart {
			calls := []Call{NewCall(unix.SYS_GETTID), NewCall(unix.SYS_SIGALTSTACK, 0, data)}
			if err := errors.Join(th.Run(calls), Must(calls)); err != nil {
				return err
			}
			if calls[0].Ret != uint64(th.TID) {
				return fmt.Errorf("thread %d says that it is %d", th.TID, calls[0].Ret)
			}
			continue
		}
		calls := []Call{
			NewCall(unix.SYS_GETTID),
			NewCall(unix.SYS_SIGALTSTACK, 0, data),
			{Nr: unix.SYS_EVENTFD2, Slot: FirstSlot, Args: [6]uint64{7, unix.EFD_CLOEXEC}},
		}
		if err := th.Run(calls); err != nil {
			return err
		}
		if err := Must(calls); err != nil {
			return err
		}
		closing := []Call{{Nr: unix.SYS_CLOSE, Slot: FirstSlot, Args: [6]uint64{calls[2].Ret}}}
		if err := errors.Join(th.Run(closing), Must(closing)); err != nil {
			return err
		}
	}
	if p.host != p {
		return nil
	}
	return writeMemory(p)
}

// writeMemory lets the process write its largest mapping to a file of ours.
func writeMemory(p *Process) error {
	maps, err := p.Threads[0].Tracer().Proc().Process(p.Live()).Maps()
	if err != nil {
		return err
	}
	largest := Range{}
	for _, m := range maps {
		if r := (Range{m.Start, m.End}); m.Perm.String() == "rw-p" && r.size() > largest.size() {
			largest = r
		}
	}
	file, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(file)
	fd, err := p.GiveFile(file)
	if err != nil {
		return err
	}
	const chunk = 8 << 20
	var writes []Call
	for at := largest.Start; at < largest.End; at += chunk {
		writes = append(writes, NewCall(unix.SYS_PWRITE64, fd, at, min(chunk, largest.End-at), at-largest.Start))
	}
	if n, err := p.RunBulk(writes); err != nil || n != len(writes) {
		return fmt.Errorf("%d of %d writes: %w", n, len(writes), err)
	}
	return errors.Join(Must(writes), p.TakeBack(fd))
}

// startWorker starts a worker on a victim.
func startWorker(t *testing.T, pid int, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envPID, pid), "GOMAXPROCS=2")
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// ended waits for a worker and reports whether it was killed. Any other end than that and success fails the test.
func ended(t *testing.T, cmd *exec.Cmd) (killed bool) {
	t.Helper()
	err := cmd.Wait()

	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			return true
		}
	}
	t.Fatalf("the worker: %v", err)
	return false
}
