//go:build amd64

package objects

import (
	"errors"
	"io/fs"
	"slices"
	"sort"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// Collect finds out what processes share, and gives it numbers. They begin after those of the program that makes the dump.
func Collect(t *collect.Tree) error {
	own := t.Snapshot.Origin.Namespaces
	clocks, err := t.Processes[0].Dir.NS("time")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	spaces, tables := sharers{what: linux.SameVM}, sharers{what: linux.SameFiles}
	contexts, handlers := sharers{what: linux.SameFS}, sharers{what: linux.SameSignal}
	spaceOf := make(map[snapshot.ObjectID]*collect.Process) // the first that has each
	for p := range t.Alive() {
		n, err := collect.Namespaces(t, p.Dir)
		if err != nil {
			return err
		}
		if err := sameClocks(t, p, clocks); err != nil {
			return err
		}
		n.Time = own.Time // the clocks are saved, and the namespace is made anew for them
		p.Task.Namespaces = n
		for _, kind := range []struct {
			name string
			a, b uint32
		}{
			{"pid", n.PID, own.PID}, {"network", n.Net, own.Net}, {"IPC", n.IPC, own.IPC}, {"UTS", n.UTS, own.UTS}, {"mount", n.Mount, own.Mount},
			{"user", n.User, own.User}, {"cgroup", n.Cgroup, own.Cgroup},
		} {
			if kind.a != kind.b {
				t.Report.Unsupported(p.Where(), "it is in a %s namespace of its own", kind.name)
			}
		}
		for _, o := range []struct {
			sharers *sharers
			id      *snapshot.ObjectID
			first   *bool
		}{
			{&spaces, &p.Task.Space, &p.Space}, {&tables, &p.Task.Table, &p.Table},
			{&contexts, &p.Task.FS, &p.FS}, {&handlers, &p.Task.Handlers, &p.Handlers},
		} {
			if *o.id, *o.first, err = o.sharers.number(t, p.Live()); err != nil {
				return err
			}
		}
		first := spaceOf[p.Task.Space]
		if first == nil {
			spaceOf[p.Task.Space] = p
		} else {
			if err := p.Remote.Join(first.Remote); err != nil {
				return err
			}
		}
	}
	outside(t)
	// When all processes have their numbers: what a thread shares with a process is that one's.
	for p := range t.Alive() {
		for _, th := range p.Threads[1:] {
			if err := apart(t, th, &tables, &contexts); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameClocks refuses what cannot have one time namespace with the root of the tree: a process in another, or whose children would be.
func sameClocks(t *collect.Tree, p *collect.Process, root proc.Namespace) error {
	for kind, why := range map[string]string{"time": "it is", "time_for_children": "its children would be"} {
		ns, err := p.Dir.NS(kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without
		}
		if err != nil {
			return err
		}
		if ns != root {
			t.Report.Unsupported(p.Where(), "%s in another time namespace than the first process of the tree", why)
		}
	}
	return nil
}

// outside refuses a tree whose root shares its memory with its parent, as a child of vfork does: the parent is not stopped, and would
// not have the same memory any more.
func outside(t *collect.Tree) {
	root := t.Processes[0]
	same, err := t.Kernel.Same(root.Live(), root.Stat.PPID, linux.SameVM, 0, 0)
	if err == nil && same { // else the parent is not ours to look at
		t.Report.Unsupported(root.Where(), "it shares its memory with its parent, process %d, which is not in the tree", root.Stat.PPID)
	}
}

// apart gives numbers to what a thread has of its own.
func apart(t *collect.Tree, th *collect.Thread, tables, contexts *sharers) error {
	p, tid := th.Process, th.Remote.TID
	sameFS, err := t.Kernel.Same(p.Live(), tid, linux.SameFS, 0, 0)
	if err != nil {
		return err
	}
	for _, o := range []struct {
		same    bool
		sharers *sharers
		id      *snapshot.ObjectID
		first   *bool
	}{
		{!th.Remote.OwnFiles, tables, &th.Snapshot.Table, &th.Table},
		{sameFS, contexts, &th.Snapshot.FS, &th.FS},
	} {
		if o.same {
			continue
		}
		if *o.id, *o.first, err = o.sharers.number(t, tid); err != nil {
			return err
		}
	}
	return nil
}

// sharers are the processes that have a thing of a kind, one for each thing, in the kernel's order.
type sharers struct {
	what int
	pids []int
	ids  []snapshot.ObjectID
}

// number returns the number of what a process has, and whether it is the first that has it.
func (s *sharers) number(t *collect.Tree, pid int) (snapshot.ObjectID, bool, error) {
	var failed error
	at, found := sort.Find(len(s.pids), func(i int) int {
		n, err := t.Kernel.Order(pid, s.pids[i], s.what, 0, 0)
		if err != nil {
			failed = err
		}
		return n
	})
	if failed != nil {
		return 0, false, failed
	}
	if found {
		return s.ids[at], false, nil
	}
	id := snapshot.ObjectID(ownID + 1 + len(s.pids))
	s.pids, s.ids = slices.Insert(s.pids, at, pid), slices.Insert(s.ids, at, id)
	return id, true, nil
}

// ownID is the number that the inventory gives to the things of the program that makes the dump.
const ownID = 1
