//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/creds"
	"stasis.example/engine/internal/state/files"
	"stasis.example/engine/internal/state/mem"
	"stasis.example/engine/internal/state/signals"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/state/timers"
	"stasis.example/image"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// RestoreOptions say what to restore.
type RestoreOptions struct {
	Images image.Dir

	// Stage, where it is set, is called at each stage of the restore, by CRIU's names, with the pid of the process from
	// setup-namespaces on; the restore waits for it, and ends when it returns an error.
	Stage func(name string, pid int) error

	kernel *linux.Kernel // for tests
}

func (o *RestoreOptions) stages(pid int, names ...string) error {
	for _, name := range names {
		if o.Stage == nil {
			break
		}
		if err := o.Stage(name, pid); err != nil {
			return err
		}
	}
	return nil
}

// Restore brings a process back from images, under its pid, as a child of the calling process, and returns the pid. When
// it fails, nothing of the process is left.
func Restore(ctx context.Context, o RestoreOptions) (int, error) {
	s, err := readTask(o.Images)
	if err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	err = ptrace.Run(ctx, ptrace.Options{Kernel: o.kernel, ExitKill: true}, func(t *ptrace.Tracer) error {
		return restore(t, o, s)
	})
	if err != nil {
		return 0, fmt.Errorf("restore process %d: %w", s.PID, err)
	}
	return s.PID, nil
}

// restore is the order of events.
func restore(t *ptrace.Tracer, o RestoreOptions, s *snapshot.Task) error {
	if err := o.stages(0, "pre-restore"); err != nil {
		return err
	}
	p, err := makeProcess(t, s)
	if err != nil {
		if p != nil {
			err = errors.Join(err, p.Destroy())
		}
		return err
	}
	r := &restorer{p: p, task: s, images: o.Images, dir: proc.New(os.DirFS("/proc")).Process(s.PID)}
	for _, step := range []func() error{
		func() error { return o.stages(s.PID, "setup-namespaces", "post-setup-namespaces") },
		r.run,
		func() error { return o.stages(s.PID, "post-restore", "network-unlock", "pre-resume") },
	} {
		if err := step(); err != nil {
			return errors.Join(err, p.Destroy())
		}
	}
	if s.Stopped {
		if err := errors.Join(p.Restore(), p.Signal(unix.SIGSTOP)); err != nil {
			return errors.Join(err, p.Destroy())
		}
		if err := p.LetGo(); err != nil {
			return err
		}
	} else if err := p.Release(); err != nil {
		return errors.Join(err, p.Destroy())
	}
	_ = o.stages(s.PID, "post-resume") // too late to change anything
	return nil
}

// makeProcess starts a program of ours and copies it under the pid that is wanted.
func makeProcess(t *ptrace.Tracer, s *snapshot.Task) (*remote.Process, error) {
	stub, err := startStub()
	if err != nil {
		return nil, err
	}
	original, err := remote.Freeze(t, stub)
	if err != nil {
		_ = unix.Kill(stub, unix.SIGKILL)
		_, werr := unix.Wait4(stub, nil, unix.WALL, nil)
		return nil, errors.Join(err, werr)
	}
	if err := original.EnterToCopy(seed(s)); err != nil {
		return nil, errors.Join(err, original.Destroy())
	}
	p, err := original.Copy(s.PID)
	if p == nil {
		return nil, errors.Join(err, original.Destroy())
	}
	return p, err
}

// startStub starts a program that does nothing but wait, from anonymous memory: what comes of it must have no trace of
// a file.
func startStub() (int, error) {
	fd, err := unix.MemfdCreate("stasis", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	program := remote.Stub()
	if n, err := unix.Write(fd, program); err != nil || n != len(program) {
		return 0, fmt.Errorf("write the stub: %w", err)
	}
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"stasis"}, &syscall.ProcAttr{
		Env: []string{}, Files: []uintptr{},
		// Until it is traced, it dies with the thread that starts it, which is the tracer.
		Sys: &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return 0, fmt.Errorf("start the stub: %w", err)
	}
	return pid, nil
}

type restorer struct {
	p      *remote.Process
	task   *snapshot.Task
	images image.Dir
	dir    proc.Dir
}

// run shapes the process. Memory first, since what follows points into it; descriptors when no mapping needs one any
// more; timers, limits and registers last.
func (r *restorer) run() error {
	p, s := r.p, r.task
	with := func(f *snapshot.File, use func(fd uint64) error) error { return files.With(p, f, use) }
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"session", r.session},
		{"mappings", func() error { return mem.Apply(p, r.dir, &s.MM, with) }},
		{"pages", r.fill},
		{"program", r.program},
		{"files", func() error { return files.Apply(p, s) }},
		{"signals", func() error { return signals.Apply(p, s) }},
		{"credentials", func() error { return creds.Apply(p, r.dir, s) }},
		{"threads", r.threads},
		{"timers", func() error { return timers.Apply(p, s) }},
		{"limits", func() error { return creds.ApplyLimits(p, r.dir, s) }},
		{"registers", r.registers},
		{"start", p.ReadyToStart},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func (r *restorer) session() error {
	calls := []remote.Call{remote.NewCall(unix.SYS_SETSID)}
	return errors.Join(r.p.Run(calls), remote.Must(calls))
}

func (r *restorer) fill() error {
	chain, err := image.OpenChain(r.images, image.Pagemap, uint64(r.task.PID), pageSize, image.DefaultLimits())
	if err != nil {
		return err
	}
	return errors.Join(mem.Fill(r.p, chain, &r.task.MM), chain.Close())
}

// program sets the program, which is what /proc/PID/exe shows.
func (r *restorer) program() error {
	exe := r.task.Exe
	exe.Flags, exe.Pos = unix.O_RDONLY, 0
	return files.With(r.p, &exe, func(fd uint64) error { return mem.Protect(r.p, &r.task.MM, fd) })
}

func (r *restorer) threads() error {
	for i := range r.task.Threads {
		s := &r.task.Threads[i]
		if i > 0 {
			if _, err := r.p.AddThread(s.TID); err != nil {
				return err
			}
		}
		th := r.p.Threads[i]
		if err := errors.Join(threads.Apply(r.p, th, s), signals.ApplyThread(r.p, th, s)); err != nil {
			return err
		}
	}
	return nil
}

func (r *restorer) registers() error {
	for i, th := range r.p.Threads {
		if err := threads.ApplyRegisters(th, &r.task.Threads[i]); err != nil {
			return err
		}
	}
	return nil
}
