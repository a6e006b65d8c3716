package plan

import "stasis.example/engine/internal/snapshot"

// Op is what a step does.
type Op uint8

// The operations. The engine does them in order, those inside a task by remote calls.
const (
	// Fork makes process PID: By, or the engine where it is 0, calls clone3, by its thread ByThread. With Sibling the new process
	// becomes a child of By's parent (CLONE_PARENT).
	Fork Op = iota + 1
	// SetSession lets PID lead a session of its own: setsid.
	SetSession
	// SetGroup moves PID to process group Group: setpgid, called by itself. Group 0 is that of whoever restores.
	SetGroup
	// Adopt makes PID a child subreaper, so that it gets the orphan that comes next; Unadopt ends that.
	Adopt
	Unadopt
	// Dismiss ends helper PID. Its parent By waits for it; it is 0 for the engine.
	Dismiss
	// Die makes PID the zombie that it was, with its exit status.
	Die
	// Fill gives PID its memory: mappings and pages.
	Fill
	// AddThread makes thread Thread of PID: thread ByThread calls clone3. Share says what the two have in common of descriptors and
	// working directory; what they have not the new one gets a copy of.
	AddThread
	// Unshare gives the first thread of PID a copy of its own of what Share names.
	Unshare
)

// A Step is one operation on processes.
type Step struct {
	Op       Op
	PID      int // a process of the snapshot, or a helper
	By       int
	Group    int
	Thread   int
	ByThread int // 0 for the first
	Sibling  bool
	Helper   bool // the process is no one of the snapshot's, and is dismissed when it has served
	Share    Share
}

// anyPID reports whether a helper may have any pid. Such helpers are numbered from -1 downwards; the engine lets the kernel choose
// their pids, and forks again where it gets one that the snapshot has (see [Plan.Numbers]).
func anyPID(pid int) bool { return pid < 0 }

// Share says what a process has in common with the one that it is forked by.
type Share uint8

// The bits, in the order of their names.
const (
	ShareMemory   Share = 1 << iota // CLONE_VM
	ShareFiles                      // CLONE_FILES
	ShareFS                         // CLONE_FS
	ShareHandlers                   // CLONE_SIGHAND
)

// Numbers returns every number that the snapshot gives to a process or a thread, a group or a session: those that a helper with
// a pid of the kernel's choice must not have.
func (p *Plan) Numbers() map[int]bool {
	taken := make(map[int]bool)
	for _, t := range p.Tree.Tasks {
		taken[t.PID.Num()], taken[t.Group], taken[t.Session] = true, true, true
		for _, thread := range t.Threads {
			taken[thread.TID.Num()] = true
		}
	}
	return taken
}

// placeFills puts the filling of address spaces between the forks: before the first fork that hands pages on, otherwise after
// all of them. Spaces that are shared are filled once, by the first task that has them.
func (p *Plan) placeFills() {
	owner := make(map[int]int, len(p.Tree.Tasks)) // task → the task that fills its space
	byPID := make(map[int]*Memory, len(p.Memory))
	first := make(map[snapshot.ObjectID]int, len(p.Memory))
	for i := range p.Memory {
		m := &p.Memory[i]
		byPID[m.PID], first[m.Space] = m, m.PID
	}
	for _, t := range p.Tree.Tasks {
		if pid, ok := first[t.Space]; ok && t.State != snapshot.Dead {
			owner[t.PID.Num()] = pid
		}
	}
	// A helper has to have the memory that the process it forks shall get.
	from := make(map[int]int)
	for i := len(p.Steps) - 1; i >= 0; i-- {
		s := &p.Steps[i]
		if s.Op != Fork {
			continue
		}
		if m := byPID[s.PID]; m != nil && len(m.Inherit) > 0 {
			from[s.PID] = m.From
		}
		if from[s.PID] != 0 && from[s.PID] != s.By {
			from[s.By] = from[s.PID]
		}
	}
	filled := make(map[int]bool, len(p.Memory))
	var steps []Step
	fill := func(pid int) {
		if pid != 0 && !filled[pid] {
			filled[pid] = true
			steps = append(steps, Step{Op: Fill, PID: pid})
		}
	}
	for _, s := range p.Steps {
		if s.Op == Fork && from[s.PID] != 0 {
			fill(owner[from[s.PID]])
		}
		steps = append(steps, s)
	}
	for i := range p.Memory {
		fill(p.Memory[i].PID)
	}
	p.Steps = steps
}
