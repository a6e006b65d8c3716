//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

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

// DumpOptions say what to dump and what becomes of it.
type DumpOptions struct {
	PID int
	// Images is where the images go.
	Images image.Dir
	// LeaveRunning lets the process go on after the dump. Otherwise it is killed.
	LeaveRunning bool
	// LeaveStopped leaves the process stopped, as by SIGSTOP. It goes before LeaveRunning.
	LeaveStopped bool

	// Stage, where it is set, is called at each stage of the dump, by CRIU's names; the dump waits for it, and ends when
	// it returns an error. The pid is 0.
	Stage func(name string, pid int) error

	kernel *linux.Kernel // for tests
}

func (o *DumpOptions) stage(name string) error {
	if o.Stage == nil {
		return nil
	}
	return o.Stage(name, 0)
}

// Dump freezes a process to images. When it fails, or its context ends, the process goes on as it was.
func Dump(ctx context.Context, o DumpOptions) error {
	if o.PID == os.Getpid() {
		return fmt.Errorf("dump process %d: it is this process itself: %w", o.PID, errors.ErrUnsupported)
	}
	err := ptrace.Run(ctx, ptrace.Options{Kernel: o.kernel}, func(t *ptrace.Tracer) error { return dump(t, o) })
	if err != nil {
		return fmt.Errorf("dump process %d: %w", o.PID, err)
	}
	return nil
}

// dump is the order of events. The process is let go whatever happens, and killed only when all is written.
func dump(t *ptrace.Tracer, o DumpOptions) error {
	if err := o.stage("pre-dump"); err != nil {
		return err
	}
	p, err := remote.Freeze(t, o.PID)
	if err != nil {
		return err
	}
	d := &dumper{kernel: t.Kernel(), fs: proc.New(os.DirFS("/proc")), p: p, images: o.Images}
	// There is no network to be locked yet, but who waits for the stage is told.
	for _, step := range []func() error{
		func() error { return o.stage("network-lock") },
		d.run,
		func() error { return o.stage("network-unlock") },
		func() error { return o.stage("post-dump") },
	} {
		if err := step(); err != nil {
			return errors.Join(err, p.Release())
		}
	}
	switch {
	case o.LeaveStopped:
		// Between the two, so that it does not run for an instant.
		return errors.Join(p.Restore(), p.Signal(unix.SIGSTOP), p.LetGo())
	case o.LeaveRunning:
		return p.Release()
	default:
		return p.Kill()
	}
}

type dumper struct {
	kernel *linux.Kernel
	fs     proc.FS
	p      *remote.Process
	images image.Dir
	task   snapshot.Task
}

func (d *dumper) run() error {
	if err := errors.Join(d.lookAround(), d.collectStopped()); err != nil {
		return err
	}
	if err := d.p.Enter(); err != nil {
		return err
	}
	if err := d.collect(); err != nil {
		return err
	}
	return d.write()
}

// lookAround reads what the process is, and refuses what cannot be dumped before anything in it is touched.
func (d *dumper) lookAround() error {
	pid, dir := d.p.PID, d.fs.Process(d.p.PID)
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	for _, th := range d.p.Threads {
		children, err := d.fs.Thread(pid, th.TID).Children()
		if err != nil {
			return err
		}
		if len(children) > 0 {
			return fmt.Errorf("process %d: %w: it has children (%v)", pid, errors.ErrUnsupported, children)
		}
	}
	if d.p.Threads[0].TID != pid {
		return fmt.Errorf("process %d: %w: its first thread has exited", pid, errors.ErrUnsupported)
	}
	for _, kind := range []string{"pid", "mnt", "net", "ipc", "uts", "user", "cgroup", "time"} {
		theirs, err := dir.NS(kind)
		if err != nil {
			return err
		}
		ours, err := d.fs.Self().NS(kind)
		if err != nil {
			return err
		}
		if theirs.Inode != ours.Inode {
			return fmt.Errorf("process %d: %w: it is in a %s namespace of its own", pid, errors.ErrUnsupported, kind)
		}
	}
	d.task = snapshot.Task{
		PID: pid, PPID: st.PPID, PGID: st.PGRP, SID: st.Session, Comm: st.Comm, Flags: st.Flags,
		Stopped: d.p.Threads[0].Stop.Kind == ptrace.GroupStop,
	}
	return files.Collect(d.kernel, pid, dir, nil, &d.task)
}

// collectStopped reads what ptrace tells of stopped threads.
func (d *dumper) collectStopped() error {
	d.task.Threads = make([]snapshot.Thread, len(d.p.Threads))
	for i, th := range d.p.Threads {
		if err := threads.CollectStopped(d.kernel, th, d.fs.Thread(d.p.PID, th.TID), &d.task.Threads[i]); err != nil {
			return err
		}
	}
	return signals.CollectStopped(d.kernel, d.p, &d.task)
}

// collect asks the process itself. What is asked in which order does not matter, but for the pages, which come last.
func (d *dumper) collect() error {
	p, dir, task := d.p, d.fs.Process(d.p.PID), &d.task
	for _, step := range []func() error{
		func() error { return signals.Collect(p, task) },
		func() error { return timers.Collect(p, dir, task) },
		func() error { return creds.Collect(p, dir, task) },
		d.collectThreads,
		func() error { return mem.Collect(p, dir, files.Mapped(p.PID), &task.MM) },
		func() error { return mem.Scan(d.kernel, p.PID, &task.MM) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) collectThreads() error {
	for i, th := range d.p.Threads {
		s := &d.task.Threads[i]
		if err := errors.Join(threads.Collect(d.p, th, s), creds.CollectThread(th, d.fs.Thread(d.p.PID, th.TID), s)); err != nil {
			return err
		}
	}
	return nil
}
