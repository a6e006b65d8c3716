package plan

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// What processes share
//
// A thing that several processes have passes from one to the next when it is forked (CLONE_VM, CLONE_FILES, CLONE_FS,
// CLONE_SIGHAND): a process gets what it shares with those that were made before from the one that forks it, or it cannot be made.
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

// share decides which thread forks a process, and what it has in common with that one; by is nil where who forks it has nothing. It
// returns what the first thread is born with and does not keep.
func (s *sharer) share(n, by *node, step *Step) (born pair) {
	t := n.task
	if t.State != snapshot.Running && t.State != snapshot.Stopped {
		return pair{}
	}
	for _, thing := range []sharedThing{{ShareMemory, t.Space}, {ShareHandlers, t.Handlers}} {
		first := s.first[thing]
		switch {
		case first == nil:
			s.first[thing] = n
		case by != nil && by.task != nil && (thing.kind == ShareMemory && by.task.Space == t.Space || thing.kind == ShareHandlers && by.task.Handlers == t.Handlers):
			step.Share |= thing.kind
		default:
			s.stranger(n, first, thing.kind)
		}
	}
	want := s.wanted(n)
	if want == (pair{}) {
		return pair{}
	}
	thread, ok := 0, false
	if by != nil && by.task != nil {
		thread, ok = whoHas(by.task, want)
	}
	for _, thing := range want.things() {
		if ok {
			step.Share |= thing.kind
		} else {
			s.stranger(n, s.first[thing], thing.kind)
		}
	}
	step.ByThread = thread
	if want.table != t.Table {
		born.table = want.table
	}
	if want.fs != t.FS {
		born.fs = want.fs
	}
	return born
}

// wanted returns what a process has that those made before have too, and notes what it is the first to have.
func (s *sharer) wanted(n *node) (want pair) {
	look := func(has pair) {
		for _, thing := range has.things() {
			first, got := s.first[thing], &want.table
			if thing.kind == ShareFS {
				got = &want.fs
			}
			switch {
			case first == nil:
				s.first[thing] = n
			case first == n:
			case *got == 0 || *got == thing.id:
				*got = thing.id
			default: // one clone brings one of a kind
				s.stranger(n, first, thing.kind)
			}
		}
	}
	look(pair{n.task.Table, n.task.FS})
	if s.owner != nil {
		for _, th := range n.task.Threads {
			look(pairOf(th))
		}
	}
	return want
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
		s.r.Unsupported(pstreeName, "process %d shares %s with process %d, which does not fork it", n.pid, shareNames[kind], first.pid)
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
