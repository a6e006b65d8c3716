//go:build amd64

package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/mm"
	"stasis.example/engine/internal/state/regs"
	"stasis.example/engine/internal/state/signals"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/stub"
)

// shape carries out the steps of the plan. Steps that follow each other and are done by the same process are one batch.
func (r *restore) shape(tr *ptrace.Tracer) error {
	numbers := r.plan.Numbers()
	steps := r.plan.Steps
	for len(steps) > 0 {
		s := steps[0]
		n := 1
		var err error
		switch s.Op {
		case plan.Fork:
			for n < len(steps) && steps[n].Op == plan.Fork && steps[n].By == s.By && steps[n].ByThread == s.ByThread && steps[n].PID > 0 && s.PID > 0 {
				n++
			}
			err = r.fork(steps[:n], numbers)
		case plan.SetSession, plan.SetGroup, plan.Adopt, plan.Unadopt:
			for n < len(steps) && steps[n].PID == s.PID && inside(steps[n].Op) {
				n++
			}
			err = r.inside(steps[:n])
		case plan.Dismiss:
			err = r.dismiss(s)
		case plan.Die:
			err = r.die(s.PID)
		case plan.Fill:
			err = r.fillTask(s.PID)
		case plan.AddThread:
			err = addThread(r.made[s.PID], s)
		case plan.Unshare:
			err = unshare(r.made[s.PID], s)
		default:
			err = fmt.Errorf("step %v is not known", s)
		}
		if err != nil {
			return err
		}
		steps = steps[n:]
	}
	return nil
}

func inside(op plan.Op) bool {
	return op == plan.SetSession || op == plan.SetGroup || op == plan.Adopt || op == plan.Unadopt
}

// fork lets a process make others. The root is there already.
func (r *restore) fork(steps []plan.Step, numbers map[int]bool) error {
	if steps[0].By == 0 {
		if r.made[steps[0].PID] == nil {
			return fmt.Errorf("process %d has nobody to be made by", steps[0].PID)
		}
		return nil
	}
	by := r.made[steps[0].By]
	children := make([]stub.Child, len(steps))
	for i, s := range steps {
		children[i] = stub.Child{PID: max(s.PID, 0), Flags: shareFlags(s)}
	}
	made, err := by.ForkBy(steps[0].ByThread, children)
	for i, p := range made {
		r.made[steps[i].PID] = p
	}
	if err != nil {
		return fmt.Errorf("process %d: fork: %w", by.PID, err)
	}
	if s := steps[0]; s.PID < 0 && numbers[made[0].PID] {
		return r.forkAgain(s, numbers)
	}
	return nil
}

// forkAgain makes helpers until one has a number that nobody in the tree wants, and then ends the others.
func (r *restore) forkAgain(s plan.Step, numbers map[int]bool) error {
	by := r.made[s.By]
	var wrong []*stub.Process
	for p := r.made[s.PID]; numbers[p.PID]; p = r.made[s.PID] {
		wrong = append(wrong, p)
		made, err := by.Fork([]stub.Child{{Flags: shareFlags(s)}})
		if err != nil {
			return err
		}
		r.made[s.PID] = made[0]
	}
	for _, p := range wrong {
		if err := errors.Join(p.Destroy(), reap(by, p.PID)); err != nil {
			return err
		}
	}
	return nil
}

func shareFlags(s plan.Step) uint64 {
	var flags uint64
	if s.Sibling {
		flags |= unix.CLONE_PARENT
	}
	for _, f := range []struct {
		share plan.Share
		flag  uint64
	}{
		{plan.ShareMemory, unix.CLONE_VM}, {plan.ShareFiles, unix.CLONE_FILES}, {plan.ShareFS, unix.CLONE_FS}, {plan.ShareHandlers, unix.CLONE_SIGHAND},
	} {
		if s.Share&f.share != 0 {
			flags |= f.flag
		}
	}
	return flags
}

// addThread lets a thread of a process make another one.
func addThread(p *stub.Process, s plan.Step) error {
	apart := shareFlags(plan.Step{Share: ^s.Share & (plan.ShareFiles | plan.ShareFS)})
	return p.AddThread(s.Thread, s.ByThread, apart)
}

// unshare gives the first thread of a process copies of what it was born with.
func unshare(p *stub.Process, s plan.Step) error {
	calls := []stub.Call{stub.NewCall(unix.SYS_UNSHARE, shareFlags(s))}
	if err := p.Run(calls); err != nil {
		return err
	}
	if err := calls[0].Err(); err != nil {
		return fmt.Errorf("process %d: unshare: %w", p.PID, err)
	}
	return nil
}

// inside lets a process do something about itself.
func (r *restore) inside(steps []plan.Step) error {
	p := r.made[steps[0].PID]
	calls := make([]stub.Call, len(steps))
	for i, s := range steps {
		switch s.Op {
		case plan.SetSession:
			calls[i] = stub.NewCall(unix.SYS_SETSID)
		case plan.SetGroup:
			group := s.Group
			if group == 0 {
				group = unix.Getpgrp()
			} else if g := r.made[group]; g != nil {
				group = g.PID
			}
			calls[i] = stub.NewCall(unix.SYS_SETPGID, 0, uint64(group))
		case plan.Adopt, plan.Unadopt:
			on := uint64(0)
			if s.Op == plan.Adopt {
				on = 1
			}
			calls[i] = stub.NewCall(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, on)
		}
	}
	if err := p.Run(calls); err != nil {
		return err
	}
	for i := range calls {
		if err := calls[i].Err(); err != nil {
			return fmt.Errorf("process %d: %v: %w", p.PID, steps[i].Op, err)
		}
	}
	return nil
}

// dismiss ends a helper.
func (r *restore) dismiss(s plan.Step) error {
	p := r.made[s.PID]
	delete(r.made, s.PID)
	if err := p.Destroy(); err != nil {
		return err
	}
	if s.By == 0 {
		return nil // its parent is this process, which has waited for it
	}
	return reap(r.made[s.By], p.PID)
}

// reap lets a process wait for a child that has ended.
func reap(parent *stub.Process, pid int) error {
	calls := []stub.Call{stub.NewCall(unix.SYS_WAIT4, uint64(pid), 0, unix.WALL)}
	if err := parent.Run(calls); err != nil {
		return err
	}
	if err := calls[0].Err(); err != nil {
		return fmt.Errorf("process %d: wait for process %d: %w", parent.PID, pid, err)
	}
	return nil
}

// die makes a process the zombie that it was.
func (r *restore) die(pid int) error {
	p := r.made[pid]
	for _, t := range r.plan.Tree.Tasks {
		if t.PID.Num() == pid {
			if err := p.Die(t.Comm, t.Exit); err != nil {
				return err // and it is destroyed with the others
			}
			delete(r.made, pid)
			return nil
		}
	}
	return fmt.Errorf("process %d is not in the tree", pid)
}

// fillTask gives a process its memory.
func (r *restore) fillTask(pid int) error {
	t := r.tasks[pid]
	t.Remote = r.made[pid]
	memory := r.memoryOf(pid)
	if memory == nil || t.Space == nil {
		return fmt.Errorf("process %d has no memory of its own", pid)
	}
	if err := mm.Map(t, memory.Inherit); err != nil {
		return err
	}
	if err := t.Batch.Run(t.Remote, t.Remote.Threads[0]); err != nil {
		return fmt.Errorf("%s: %w", t.Where(), err)
	}
	if err := r.fillPages(t, memory); err != nil {
		return err
	}
	return r.patchVDSO(t)
}

func (r *restore) memoryOf(pid int) *plan.Memory {
	for i := range r.plan.Memory {
		if r.plan.Memory[i].PID == pid {
			return &r.plan.Memory[i]
		}
	}
	return nil
}

// finishTask lets a process do its last calls, and gives its threads their registers.
func (r *restore) finishTask(t *apply.Task) error {
	for _, th := range t.Threads {
		if th.Exited {
			continue
		}
		if err := regs.Apply(th); err != nil {
			return err
		}
	}
	space := r.spaceOf(t)
	if space == nil {
		return fmt.Errorf("%s has no address space", t.Where())
	}
	at, err := mm.SyscallAt(t.Remote, space)
	if err != nil {
		return err
	}
	last, err := signals.Last(t)
	if err != nil {
		return err
	}
	if err := t.Remote.Finish(at, t.Space != nil, last); err != nil {
		return err
	}
	for _, th := range t.Threads {
		if err := threads.Section(th); err != nil {
			return err
		}
	}
	return nil
}

// spaceOf returns the address space of a process, its own or one that it shares.
func (r *restore) spaceOf(t *apply.Task) *snapshot.Space {
	for _, s := range r.plan.Tree.Spaces {
		if s.ID == t.Task.Space {
			return s
		}
	}
	return nil
}
