package plan

import (
	"fmt"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// births decides how the threads are made of processes in which they are not all alike, but for those that the steps make already.
func (p *Plan) births(r *images.Report) {
	early := make(map[int]bool)
	for _, s := range p.Steps {
		if s.Op == AddThread {
			early[s.PID] = true
		}
	}
	for _, t := range p.Tree.Tasks {
		if t.State == snapshot.Dead || early[t.PID.Num()] {
			continue
		}
		for _, th := range t.Threads {
			if pairOf(th) == (pair{}) {
				continue
			}
			if p.Births == nil {
				p.Births = make(map[int][]Step)
			}
			steps, problems := birthsOf(t, pair{})
			for _, problem := range problems {
				r.Damaged(images.CoreName(problem.tid), "%s", problem)
			}
			p.Births[t.PID.Num()] = steps
			break
		}
	}
}

// pair is what a thread has, 0 for what its process has.
type pair struct{ table, fs snapshot.ObjectID }

func pairOf(th *snapshot.Thread) pair { return pair{th.Table, th.FS} }

// things returns those of the two that are not 0.
func (p pair) things() []sharedThing {
	var things []sharedThing
	if p.table != 0 {
		things = append(things, sharedThing{ShareFiles, p.table})
	}
	if p.fs != 0 {
		things = append(things, sharedThing{ShareFS, p.fs})
	}
	return things
}

// birther makes the threads of a process.
type birther struct {
	task     *snapshot.Task
	steps    []Step
	problems []unborn
	done     map[*snapshot.Thread]bool
	now      pair                      // what the first thread has; what it will have is nobody else's before
	made     map[pair]int              // who has both
	tables   map[snapshot.ObjectID]int // who has one of the two
	contexts map[snapshot.ObjectID]int
	reached  []pair // whose other owners were not looked for yet
	byTable  map[snapshot.ObjectID][]*snapshot.Thread
	byFS     map[snapshot.ObjectID][]*snapshot.Thread
}

// unborn is a thread that cannot be made by one other: it shares descriptors with one, and its working directory with another.
type unborn struct{ tid, table, context int }

func (u unborn) String() string {
	return fmt.Sprintf("the thread shares its descriptors with thread %d and its working directory with thread %d, as no thread can that is made by either", u.table, u.context)
}

// birthsOf orders the threads of a process so that each can be made. Whoever makes a thread shares both with it, or one of them
// while the other is new, or none. So what has something in common with a thread that is made comes next. Threads that have come
// about by clone and unshare are all in reach that way. What the first thread is born with and does not keep is made first of all: it
// gives up one after the other when it has made who has it.
func birthsOf(t *snapshot.Task, born pair) ([]Step, []unborn) {
	b := &birther{
		task: t, now: born, done: make(map[*snapshot.Thread]bool), made: make(map[pair]int),
		tables: make(map[snapshot.ObjectID]int), contexts: make(map[snapshot.ObjectID]int),
		byTable: make(map[snapshot.ObjectID][]*snapshot.Thread), byFS: make(map[snapshot.ObjectID][]*snapshot.Thread),
	}
	tablesLast := false
	for _, th := range t.Threads[1:] {
		b.byTable[th.Table], b.byFS[th.FS] = append(b.byTable[th.Table], th), append(b.byFS[th.FS], th)
		tablesLast = tablesLast || born.table != 0 && pairOf(th) == (pair{table: born.table})
	}
	b.reach(t.PID.Num(), b.now)
	b.near()
	if tablesLast {
		b.unshare(ShareFS)
	}
	b.unshare(ShareFiles)
	b.unshare(ShareFS)
	for _, th := range t.Threads[1:] {
		b.make(th)
		b.near()
	}
	return b.steps, b.problems
}

// unshare lets the first thread give up what it was born with, and then make others with what it has now.
func (b *birther) unshare(what Share) {
	switch {
	case what == ShareFiles && b.now.table != 0:
		b.now.table = 0
	case what == ShareFS && b.now.fs != 0:
		b.now.fs = 0
	default:
		return
	}
	b.steps = append(b.steps, Step{Op: Unshare, PID: b.task.PID.Num(), Share: what})
	b.reach(b.task.PID.Num(), b.now)
	b.near()
}

// near makes all that have something in common with who was made.
func (b *birther) near() {
	for len(b.reached) > 0 {
		next := b.reached[0]
		b.reached = b.reached[1:]
		for _, near := range [][]*snapshot.Thread{b.byTable[next.table], b.byFS[next.fs]} {
			for _, th := range near {
				if (th.Table != 0 || b.now.table == 0) && (th.FS != 0 || b.now.fs == 0) {
					b.make(th)
				}
			}
		}
		b.byTable[next.table], b.byFS[next.fs] = nil, nil
	}
}

// reach notes that a thread is there.
func (b *birther) reach(tid int, has pair) {
	b.made[has] = tid
	if _, known := b.tables[has.table]; !known {
		b.tables[has.table] = tid
	}
	if _, known := b.contexts[has.fs]; !known {
		b.contexts[has.fs] = tid
	}
	b.reached = append(b.reached, has)
}

// make decides who makes a thread.
func (b *birther) make(th *snapshot.Thread) {
	if b.done[th] {
		return
	}
	b.done[th] = true
	tid, has := th.TID.Num(), pairOf(th)
	birth := Step{Op: AddThread, PID: b.task.PID.Num(), Thread: tid, ByThread: b.task.PID.Num()}
	if by, ok := b.made[has]; ok {
		birth.ByThread, birth.Share = by, ShareFiles|ShareFS
		b.steps = append(b.steps, birth)
		return
	}
	table, hasTable := b.tables[has.table]
	context, hasContext := b.contexts[has.fs]
	switch {
	case hasTable && hasContext:
		b.problems = append(b.problems, unborn{tid, table, context})
		return
	case hasTable:
		birth.ByThread, birth.Share = table, ShareFiles
	case hasContext:
		birth.ByThread, birth.Share = context, ShareFS
	}
	b.steps = append(b.steps, birth)
	b.reach(tid, has)
}

// threadTerminals refuses terminals that only threads have, as their settings are put back by a process that has them.
func (p *Plan) threadTerminals(r *images.Report) {
	threads := make(map[snapshot.ObjectID]int) // by their tables
	for _, t := range p.Tree.Tasks {
		for _, th := range t.Threads {
			if th.Table != 0 {
				threads[th.Table] = th.TID.Num()
			}
		}
	}
	if len(threads) == 0 {
		return
	}
	for _, t := range p.Tree.Tasks {
		delete(threads, t.Table)
	}
	terminals := make(map[snapshot.FileID]bool)
	for _, f := range p.Tree.Files {
		if _, is := f.Object.(*snapshot.TTY); is {
			terminals[f.ID] = true
		}
	}
	for _, table := range p.Tree.Tables {
		for _, s := range table.Slots {
			if tid := threads[table.ID]; tid == 0 {
				delete(terminals, s.File) // a process has it
			}
		}
	}
	for _, table := range p.Tree.Tables {
		for _, s := range table.Slots {
			if terminals[s.File] {
				r.Unsupported(images.FileName(uint32(s.File)), "a terminal that only thread %d has, by descriptor %d", threads[table.ID], s.FD)
			}
		}
	}
}
