package plan

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// What processes share
//
// A thing that several processes have passes from one to the next when it is forked (CLONE_VM, CLONE_FILES, CLONE_FS,
// CLONE_SIGHAND): a process gets what it shares with those that were made before from the one that forks it, or it cannot be made.
// That is its parent, or a sister (CLONE_PARENT).
//
// Threads may have descriptors and a working directory that are not their process's, and other processes may share those. A process
// of such threads gets them at once, and not with all others when every process is there: so a thread can fork what shares with it.
// Where it is the new process whose first thread does not have what its others share, the first one has it until these are made, and
// then leaves it to them (unshare).

// sharedThing is something that several processes may have.
type sharedThing struct {
	kind Share
	id   snapshot.ObjectID
}

var shareNames = map[Share]string{ShareMemory: "its memory", ShareFiles: "its descriptors", ShareFS: "its working directory", ShareHandlers: "its signal handlers"}

// sharer decides what processes get from those that fork them.
type sharer struct {
	r     *images.Report
	first map[sharedThing]*node // of those that are made, who has it first
	// owner is the process that has what a thread has for itself, 0 for more than one. It is nil where no thread has anything.
	owner map[sharedThing]int
	// problems are what cannot be made. Of a tree that was tried in vain nobody is told.
	problems []func()
}

func newSharer(t *snapshot.Tree, r *images.Report) sharer {
	s := sharer{r: r, first: make(map[sharedThing]*node)}
	for _, task := range t.Tasks {
		for _, th := range task.Threads {
			for _, thing := range pairOf(th).things() {
				if s.owner == nil {
					s.owner = make(map[sharedThing]int)
				}
				s.owned(thing, task.PID.Num())
			}
		}
	}
	if s.owner == nil {
		return s
	}
	for _, task := range t.Tasks {
		for _, thing := range (pair{task.Table, task.FS}).things() {
			if _, threads := s.owner[thing]; threads {
				s.owned(thing, task.PID.Num())
			}
		}
	}
	return s
}

func (s *sharer) owned(thing sharedThing, pid int) {
	if owner, known := s.owner[thing]; known && owner != pid {
		pid = 0
	}
	s.owner[thing] = pid
}

// early reports whether a process gets its threads when it is forked: one of them has something for itself that another process has.
func (s *sharer) early(t *snapshot.Task) bool {
	if s.owner == nil {
		return false
	}
	for _, th := range t.Threads {
		for _, thing := range pairOf(th).things() {
			if s.owner[thing] == 0 {
				return true
			}
		}
	}
	return false
}

// A want is what a process has that others have, too, which were made before: 0 for none of a kind.
type want struct {
	space, handlers snapshot.ObjectID
	pair
	second []sharedThing // what a clone cannot bring as well: one brings one of a kind
}

func (w *want) things() []sharedThing {
	things := w.pair.things()
	if w.space != 0 {
		things = append(things, sharedThing{ShareMemory, w.space})
	}
	if w.handlers != 0 {
		things = append(things, sharedThing{ShareHandlers, w.handlers})
	}
	return things
}

// wanted returns what a process has that those made before have too.
func (s *sharer) wanted(n *node) (w want) {
	s.each(n, func(thing sharedThing) {
		if first := s.first[thing]; first == nil || first == n {
			return
		}
		got := map[Share]*snapshot.ObjectID{ShareMemory: &w.space, ShareHandlers: &w.handlers, ShareFiles: &w.table, ShareFS: &w.fs}[thing.kind]
		if *got == 0 {
			*got = thing.id
		} else if *got != thing.id {
			w.second = append(w.second, thing)
		}
	})
	return w
}

// each iterates over what a process and its threads have; things of threads may come more than once.
func (s *sharer) each(n *node, do func(sharedThing)) {
	t := n.task
	if t.State != snapshot.Running && t.State != snapshot.Stopped {
		return
	}
	for _, thing := range [...]sharedThing{{ShareMemory, t.Space}, {ShareHandlers, t.Handlers}, {ShareFiles, t.Table}, {ShareFS, t.FS}} {
		do(thing)
	}
	if s.owner == nil {
		return
	}
	for _, th := range t.Threads {
		for _, thing := range pairOf(th).things() {
			do(thing)
		}
	}
}

// gives returns the thread of a process that can fork what wants something, 0 for the first; by may be nil, which has nothing.
func (w *want) gives(by *node) (tid int, ok bool) {
	if by == nil || by.task == nil || w.space != 0 && w.space != by.task.Space || w.handlers != 0 && w.handlers != by.task.Handlers {
		return 0, false
	}
	return whoHas(by.task, w.pair)
}

// sister returns a sister of a process that is to be made, one that can fork it where its parent cannot: it shares with her what it
// does not share with its parent, as when she has made it (CLONE_PARENT), or the parent has it no more. Nil is for none.
func (s *sharer) sister(n, parent *node) *node {
	w := s.wanted(n)
	things := w.things()
	if len(things) == 0 {
		return nil
	}
	if _, ok := w.gives(parent); ok {
		return nil
	}
	for _, thing := range things {
		by := s.first[thing]
		if _, ok := w.gives(by); ok && by.parent == parent && (n.born == anySession || n.born == by.nowSession) {
			return by
		}
	}
	return nil
}

// share decides which thread forks a process, and what it has in common with that one; by is nil where who forks it has nothing. It
// returns what the first thread is born with and does not keep.
func (s *sharer) share(n, by *node, step *Step) (born pair) {
	w := s.wanted(n)
	things := w.things()
	thread, ok := w.gives(by)
	for _, thing := range things {
		if ok {
			step.Share |= thing.kind
			step.ByThread = thread
		} else {
			s.stranger(n, s.first[thing], thing.kind)
		}
	}
	for _, thing := range w.second {
		s.stranger(n, s.first[thing], thing.kind)
	}
	s.each(n, func(thing sharedThing) {
		if s.first[thing] == nil {
			s.first[thing] = n
		}
	})
	if w.table != n.task.Table {
		born.table = w.table
	}
	if w.fs != n.task.FS {
		born.fs = w.fs
	}
	return born
}

// whoHas returns the thread of a process that has something, 0 for the first.
func whoHas(t *snapshot.Task, want pair) (tid int, ok bool) {
	has := func(p pair) bool {
		return (want.table == 0 || want.table == p.table) && (want.fs == 0 || want.fs == p.fs)
	}
	if has(pair{t.Table, t.FS}) {
		return 0, true
	}
	for _, th := range t.Threads {
		own := pairOf(th)
		if own.table == 0 {
			own.table = t.Table
		}
		if own.fs == 0 {
			own.fs = t.FS
		}
		if has(own) {
			return th.TID.Num(), true
		}
	}
	return 0, false
}

func (s *sharer) stranger(n, first *node, kind Share) {
	s.problems = append(s.problems, func() {
		s.r.Unsupported(pstreeName, "process %d shares %s with process %d, which cannot fork it", n.pid, shareNames[kind], first.pid)
	})
}

// checkShares says which of what processes share cannot be made.
func (s *shaper) checkShares() {
	for _, say := range s.shares.problems {
		say()
	}
	for _, step := range s.steps {
		if step.Share&ShareHandlers != 0 && step.Share&ShareMemory == 0 {
			s.r.Damaged(pstreeName, "process %d shares its signal handlers with process %d, and not its memory", step.PID, step.By)
		}
	}
}
