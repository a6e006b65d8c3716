//go:build amd64

package proctree

import (
	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
)

// Collect makes the tasks and threads of the snapshot.
func Collect(t *collect.Tree) error {
	c := collector{tree: t, members: make(map[int]bool)}
	for _, p := range t.Processes {
		c.members[p.PID] = true
	}
	for _, p := range t.Processes {
		if err := c.task(p); err != nil {
			return err
		}
	}
	return nil
}

type collector struct {
	tree    *collect.Tree
	members map[int]bool
}

func (c *collector) task(p *collect.Process) error {
	s := &p.Stat
	task := &snapshot.Task{
		PID: snapshot.PID{p.PID}, Parent: p.Parent, Group: s.PGRP, Session: s.Session, Comm: s.Comm, KernelFlags: s.Flags, State: snapshot.Running,
	}
	p.Task = task
	c.tree.Snapshot.Tasks = append(c.tree.Snapshot.Tasks, task)
	c.ties(p)
	if p.Remote == nil {
		task.State, task.Exit = snapshot.Dead, uint32(s.ExitCode)
		return nil
	}
	if len(p.Threads) == 0 || p.Threads[0].Remote.TID != p.PID {
		task.Threads = append(task.Threads, &snapshot.Thread{TID: snapshot.PID{p.PID}, Exited: true})
	}
	for _, th := range p.Threads {
		comm, err := th.Dir.Comm()
		if err != nil {
			return err
		}
		th.Snapshot = &snapshot.Thread{TID: snapshot.PID{th.Remote.TID}, Comm: comm}
		task.Threads = append(task.Threads, th.Snapshot)
		if stop := th.Remote.Stop; stop.Kind == ptrace.GroupStop {
			task.State, task.StopSig = snapshot.Stopped, int(stop.Signal)
		}
	}
	status, err := p.Status()
	if err != nil {
		return err
	}
	if len(status.NSPID) > 1 {
		c.tree.Report.Unsupported(p.Where(), "it is in a pid namespace of its own")
	}
	return nil
}

// ties reports sessions and groups whose leaders are not in the tree: nobody could make them again. A leader may have ended,
// then its number is the session's or group's all the same.
func (c *collector) ties(p *collect.Process) {
	s := &p.Stat
	if c.tree.Outer {
		return
	}
	for _, tie := range []struct {
		name string
		id   int
	}{{"session", s.Session}, {"process group", s.PGRP}} {
		if tie.id == 0 || c.members[tie.id] {
			continue
		}
		// A leader outside the tree lives; one that has ended is nowhere.
		if err := unix.Kill(tie.id, 0); err == nil {
			c.tree.Report.Unsupported(p.Where(), "its %s %d is led by a process outside of the tree; a shell job has to be dumped as one (shell_job)", tie.name, tie.id)
		} else if tie.name == "session" && p.Parent == 0 {
			c.tree.Report.Unsupported(p.Where(), "its session %d has no leader any more", tie.id)
		}
	}
}
