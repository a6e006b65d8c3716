//go:build amd64

package stub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

const base = 0x10000000

// made is a tree of a few processes.
type made struct {
	root, child, helper *Process
}

func (m *made) destroy() error {
	var errs []error
	for _, p := range []*Process{m.helper, m.child, m.root} {
		if p != nil {
			errs = append(errs, p.Destroy())
		}
	}
	return errors.Join(errs...)
}

// build makes a root with a number of its own, its child, which has threads, and a helper of any number.
func build(tr *ptrace.Tracer, files []int, ids []int) (m *made, err error) {
	m = new(made)
	original, err := Start(tr, &Layout{Area: snapshot.Range{Start: base, End: base + AreaSize}, Files: files, FirstFile: 30})
	if err != nil {
		return m, err
	}
	roots, err := original.Fork([]Child{{PID: ids[0], Flags: unix.CLONE_PARENT | ClearHandlers}})
	if len(roots) > 0 {
		m.root = roots[0]
	}
	if err = errors.Join(err, original.Destroy()); err != nil {
		return m, err
	}
	children, err := m.root.Fork([]Child{{PID: ids[1]}, {}})
	if len(children) > 0 {
		m.child = children[0]
	}
	if len(children) > 1 {
		m.helper = children[1]
	}
	if err != nil {
		return m, err
	}
	return m, m.child.AddThreads(ids[2:])
}

// freeIDs returns numbers that nobody has: those of a process that has just been made and is gone would be taken soon again.
func freeIDs(t *testing.T, n int) []int {
	t.Helper()
	var ids []int
	for id := 30000; len(ids) < n; id-- {
		if err := unix.Kill(id, 0); errors.Is(err, unix.ESRCH) && remote.TaskState(id, id) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func traced(t *testing.T, k *linux.Kernel, f func(*ptrace.Tracer) error) error {
	t.Helper()
	return ptrace.Run(t.Context(), ptrace.Options{Kernel: k, ExitKill: true}, f)
}

func TestTree(t *testing.T) {
	testkit.Need(t, testkit.Root)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ids := freeIDs(t, 4)
	err = traced(t, nil, func(tr *ptrace.Tracer) error {
		m, err := build(tr, []int{int(w.Fd())}, ids)
		if err == nil {
			err = examine(m, ids, r)
		}
		return errors.Join(err, m.destroy())
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if state := remote.TaskState(id, id); state != 0 && state != 'Z' {
			t.Errorf("task %d is left in state %c", id, state)
		}
	}
}

func examine(m *made, ids []int, r *os.File) error {
	calls := []Call{NewCall(unix.SYS_GETPID), NewCall(unix.SYS_GETPPID), NewCall(unix.SYS_FCNTL, 30, unix.F_GETFL), NewCall(unix.SYS_FCNTL, 29, unix.F_GETFL)}
	if err := m.child.Run(calls); err != nil {
		return err
	}
	if calls[0].Ret != uint64(ids[1]) || calls[1].Ret != uint64(ids[0]) {
		return fmt.Errorf("the child is %d of %d, should be %d of %d", calls[0].Ret, calls[1].Ret, ids[1], ids[0])
	}
	if calls[2].Err() != nil || !errors.Is(calls[3].Err(), unix.EBADF) {
		return fmt.Errorf("descriptor 30: %v, 29: %v", calls[2].Err(), calls[3].Err())
	}
	if ppid := NewCall(unix.SYS_GETPPID); true {
		calls = []Call{ppid}
		if err := m.root.Run(calls); err != nil {
			return err
		}
		if calls[0].Ret != uint64(os.Getpid()) {
			return fmt.Errorf("the root is a child of %d", calls[0].Ret)
		}
	}
	for i, th := range m.child.Threads[1:] {
		const text = "thread"
		if err := m.child.Write(m.child.Arguments(), []byte(text)); err != nil {
			return err
		}
		calls := []Call{NewCall(unix.SYS_GETTID), NewCall(unix.SYS_WRITE, 30, m.child.Arguments(), uint64(len(text)))}
		if err := th.Run(calls); err != nil {
			return err
		}
		buf := make([]byte, 2*len(text))
		n, err := r.Read(buf)
		if calls[0].Ret != uint64(ids[2+i]) || err != nil || string(buf[:n]) != text {
			return fmt.Errorf("thread %d: %d wrote %q, %w", ids[2+i], calls[0].Ret, buf[:n], err)
		}
	}
	return nil
}

// A zombie that is made has the status that was wanted, for the parent to see.
func TestDie(t *testing.T) {
	testkit.Need(t, testkit.Root)
	ids := freeIDs(t, 3)
	for _, status := range []uint32{0, 3 << 8, uint32(unix.SIGKILL), uint32(unix.SIGTERM), uint32(unix.SIGSEGV)} {
		err := traced(t, nil, func(tr *ptrace.Tracer) error {
			m, err := build(tr, nil, ids[:2])
			if err != nil {
				return errors.Join(err, m.destroy())
			}
			child := m.child
			m.child = nil
			if err := child.Die("one that died", status); err != nil {
				return errors.Join(err, m.destroy())
			}
			at := m.root.Arguments()
			calls := []Call{NewCall(unix.SYS_WAIT4, uint64(child.PID), at, unix.WALL|unix.WNOHANG)}
			var got [4]byte
			err = errors.Join(m.root.Run(calls), remote.Must(calls), m.root.Read(at, got[:]))
			if have := uint32(got[0]) | uint32(got[1])<<8; err == nil && (have != status || calls[0].Ret != uint64(child.PID)) {
				err = fmt.Errorf("wait4 says %d, status %#x", calls[0].Ret, have)
			}
			return errors.Join(err, m.destroy())
		})
		if err != nil {
			t.Errorf("status %#x: %v", status, err)
		}
		testkit.WaitFor(t, "the numbers to be free", func() bool { return gone(ids[0]) && gone(ids[1]) })
	}
}

func gone(id int) bool { return errors.Is(unix.Kill(id, 0), unix.ESRCH) }

// Whatever step fails, nothing is left.
func TestFailsAtEveryStep(t *testing.T) {
	testkit.Need(t, testkit.Root)
	ids := freeIDs(t, 4)
	injected := errors.New("injected")
	for step := 1; ; step++ {
		count := 0
		k := &linux.Kernel{Step: func(call string) error {
			if count++; count == step {
				return fmt.Errorf("%w at step %d, %s", injected, step, call)
			}
			return nil
		}}
		err := traced(t, k, func(tr *ptrace.Tracer) error {
			m, err := build(tr, nil, ids)
			return errors.Join(err, m.destroy())
		})
		if count < step {
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d steps", count)
			return
		}
		if err == nil {
			t.Errorf("step %d failed, and nobody noticed", step)
		}
		// Threads go with their process; who is no child of ours is init's to wait for.
		testkit.WaitFor(t, "the numbers to be free", func() bool {
			for _, id := range ids {
				if !gone(id) {
					return false
				}
			}
			return true
		})
	}
}

// A number that is taken is said to be.
func TestTaken(t *testing.T) {
	testkit.Need(t, testkit.Root)
	err := traced(t, nil, func(tr *ptrace.Tracer) error {
		m, err := build(tr, nil, []int{os.Getpid(), 0})
		return errors.Join(err, m.destroy())
	})
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("got %v", err)
	}
}

// A thread that was made by a call whose result never came to us does not keep the process from being gone.
func TestDestroyWithStray(t *testing.T) {
	testkit.Need(t, testkit.Root)
	ids := freeIDs(t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := ptrace.Run(ctx, ptrace.Options{ExitKill: true}, func(tr *ptrace.Tracer) error {
		m, err := build(tr, nil, ids)
		if err != nil {
			return errors.Join(err, m.destroy())
		}
		if _, err := m.child.clone(m.child.Threads[0], 1, func(int) (uint64, int, uint64) { return threadFlags, 0, 0 }); err != nil {
			return errors.Join(err, m.destroy())
		}
		began := time.Now()
		err = m.destroy()
		if took := time.Since(began); took > 5*time.Second {
			err = errors.Join(err, fmt.Errorf("it took %v", took))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	testkit.WaitFor(t, "the numbers to be free", func() bool { return gone(ids[0]) && gone(ids[1]) })
}
