//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
	"stasis.example/internal/linux"
)

// freeze stops the tree, parents before children: a stopped parent has no new children, and its old ones are all known.
func (d *dump) freeze(tr *ptrace.Tracer) error {
	if err := d.outside(); err != nil {
		return err
	}
	if d.cgroup != "" {
		if err := d.byCgroup(tr); err != nil {
			return err
		}
	}
	f := freezer{dump: d, tracer: tr, seen: make(map[int]bool)}
	if err := f.process(d.pid, 0); err != nil {
		return err
	}
	if f.tree()[0].Remote == nil {
		return fmt.Errorf("process %d is a zombie: %w", d.pid, unix.ESRCH)
	}
	// A process that ended while others were being stopped has left its children to one of these, perhaps.
	for {
		known := len(f.tree())
		for _, p := range f.tree()[:known] {
			if err := f.children(p); err != nil {
				return err
			}
		}
		if len(f.tree()) == known {
			d.keepFrozen()
			return nil
		}
	}
}

// outside makes sure, before anything is stopped, that this program is not in the tree: it would stop itself.
func (d *dump) outside() error {
	self := os.Getpid()
	for pid := self; pid > 0; {
		if pid == d.pid {
			what := "has started this program, which would be in its tree"
			if pid == self {
				what = "is this program itself"
			}
			return fmt.Errorf("process %d %s: what dumps a tree cannot be in it; ask a service, or have the tree dumped from outside: %w",
				d.pid, what, errors.ErrUnsupported)
		}
		stat, err := d.tree.Proc.Process(pid).Stat()
		switch {
		case err == nil:
			pid = stat.PPID
		case gone(err) && pid != self: // its children have another parent by now
			pid = self
		default:
			return err
		}
	}
	return nil
}

type freezer struct {
	dump   *dump
	tracer *ptrace.Tracer
	seen   map[int]bool
}

func (f *freezer) tree() []*collect.Process { return f.dump.tree.Processes }

// process stops a process, and then those below it.
func (f *freezer) process(pid, parent int) error {
	f.seen[pid] = true
	if pid == os.Getpid() {
		return fmt.Errorf("process %d is this program itself, which cannot dump itself in process: %w", pid, errors.ErrUnsupported)
	}
	d := f.dump
	p := &collect.Process{PID: pid, Parent: parent, Dir: d.tree.Proc.Process(pid), PIDFD: -1}
	stat, err := p.Dir.Stat()
	if gone(err) {
		if parent == 0 {
			return fmt.Errorf("process %d: %w", pid, unix.ESRCH)
		}
		return nil // and its parent has asked not to be told
	}
	if err != nil {
		return err
	}
	if stat.State != 'Z' || stat.NumThreads > 1 {
		p.Remote, err = remote.Freeze(f.tracer, pid)
		if p.Remote == nil && errors.Is(err, ptrace.ErrGone) {
			err = nil // it has become a zombie meanwhile
		}
		if err != nil {
			return err
		}
	}
	if p.Remote != nil {
		d.undo.push(p.Remote.Release)
		if p.PIDFD, err = linux.OpenTask(p.Live()); err != nil {
			return fmt.Errorf("pidfd_open of process %d: %w", pid, err)
		}
	}
	// Read again: now it stays so.
	if p.Stat, err = p.Dir.Stat(); gone(err) && p.Remote == nil {
		return nil
	} else if err != nil {
		return err
	}
	if p.Live() != pid {
		// The first thread has exited: all that is left of it is the name.
		comm := p.Stat.Comm
		p.Dir = d.tree.Proc.Process(p.Live())
		if p.Stat, err = p.Dir.Stat(); err != nil {
			return err
		}
		p.Stat.Comm = comm
	}
	d.tree.Processes = append(d.tree.Processes, p)
	if p.Remote == nil {
		return nil
	}
	for _, th := range p.Remote.Threads {
		p.Threads = append(p.Threads, &collect.Thread{Remote: th, Process: p, Dir: d.tree.Proc.Thread(pid, th.TID)})
	}
	return f.children(p)
}

// children stops the children of a stopped process that were not seen yet.
func (f *freezer) children(p *collect.Process) error {
	if p.Remote == nil {
		return nil
	}
	tids, err := p.Dir.Threads()
	if err != nil {
		return err
	}
	for _, tid := range tids {
		pids, err := f.dump.tree.Proc.Thread(p.PID, tid).Children()
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if f.seen[pid] {
				continue
			}
			if err := f.process(pid, p.PID); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone tells whether an error means that a process is not there.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }
