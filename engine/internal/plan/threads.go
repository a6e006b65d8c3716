package plan

import (
	"fmt"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// A Birth is how a thread is made of a process in which threads have descriptor tables or working directories of their own:
// by which thread of the process, and what it has in common with that one. Of what it has not it gets a copy.
type Birth struct {
	TID   int
	By    int
	Share Share // ShareFiles, ShareFS
}

// births decides how the threads are made of processes in which they are not all alike.
func (p *Plan) births(r *images.Report) {
	p.threadThings(r)
	for _, t := range p.Tree.Tasks {
		if t.State == snapshot.Dead {
			continue
		}
		for _, th := range t.Threads {
			if th.Table == 0 && th.FS == 0 {
				continue
			}
			if p.Births == nil {
				p.Births = make(map[int][]Birth)
			}
			p.Births[t.PID.Num()] = birthsOf(t, r)
			break
		}
	}
}

// pair is what a thread has, 0 for what its process has.
type pair struct{ table, fs snapshot.ObjectID }

// birther makes the threads of a process.
type birther struct {
	task     *snapshot.Task
	r        *images.Report
	births   []Birth
	made     map[pair]int              // who has both
	tables   map[snapshot.ObjectID]int // who has one of the two
	contexts map[snapshot.ObjectID]int
	reached  []pair // whose other owners were not looked for yet
}

// birthsOf orders the threads of a process so that each can be made. Whoever makes a thread shares both with it, or one of them
// while the other is new, or none. So what has something in common with a thread that is made comes next. Threads that have come
// about by clone and unshare are all in reach that way.
func birthsOf(t *snapshot.Task, r *images.Report) []Birth {
	b := &birther{task: t, r: r, made: make(map[pair]int), tables: make(map[snapshot.ObjectID]int), contexts: make(map[snapshot.ObjectID]int)}
	byTable, byFS := make(map[snapshot.ObjectID][]*snapshot.Thread), make(map[snapshot.ObjectID][]*snapshot.Thread)
	for _, th := range t.Threads[1:] {
		byTable[th.Table], byFS[th.FS] = append(byTable[th.Table], th), append(byFS[th.FS], th)
	}
	b.reach(t.PID.Num(), pair{})
	done := make(map[*snapshot.Thread]bool)
	make := func(th *snapshot.Thread) {
		if !done[th] {
			done[th] = true
			b.make(th)
		}
	}
	for _, th := range t.Threads[1:] {
		for len(b.reached) > 0 {
			next := b.reached[0]
			b.reached = b.reached[1:]
			for _, near := range [][]*snapshot.Thread{byTable[next.table], byFS[next.fs]} {
				for _, th := range near {
					make(th)
				}
			}
			byTable[next.table], byFS[next.fs] = nil, nil
		}
		make(th)
	}
	return b.births
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
	tid, has := th.TID.Num(), pair{th.Table, th.FS}
	if by, ok := b.made[has]; ok {
		b.births = append(b.births, Birth{TID: tid, By: by, Share: ShareFiles | ShareFS})
		return
	}
	table, hasTable := b.tables[has.table]
	context, hasContext := b.contexts[has.fs]
	birth := Birth{TID: tid, By: b.task.PID.Num()}
	switch {
	case hasTable && hasContext:
		b.r.Damaged(images.CoreName(tid), "the thread shares its descriptors with thread %d and its working directory with thread %d, as no thread can that is made by either", table, context)
		return
	case hasTable:
		birth.By, birth.Share = table, ShareFiles
	case hasContext:
		birth.By, birth.Share = context, ShareFS
	}
	b.births = append(b.births, birth)
	b.reach(tid, has)
}

// threadThings refuses what threads have of their own and cannot be given: what other processes have too, as processes are made
// before threads; and terminals, whose settings are put back by a process that has them.
func (p *Plan) threadThings(r *images.Report) {
	type thing struct {
		kind Share
		id   snapshot.ObjectID
	}
	owner := make(map[thing]int)
	threads := make(map[snapshot.ObjectID]int) // by their tables
	for _, own := range []bool{false, true} {
		for _, t := range p.Tree.Tasks {
			if t.State == snapshot.Dead {
				continue
			}
			if !own {
				owner[thing{ShareFiles, t.Table}], owner[thing{ShareFS, t.FS}] = t.PID.Num(), t.PID.Num()
				continue
			}
			for _, th := range t.Threads {
				for _, what := range []thing{{ShareFiles, th.Table}, {ShareFS, th.FS}} {
					if what.id == 0 {
						continue
					}
					if what.kind == ShareFiles {
						threads[what.id] = th.TID.Num()
					}
					if pid, known := owner[what]; known && pid != t.PID.Num() {
						r.Unsupported(images.CoreName(th.TID.Num()), "the thread shares %s with process %d, which is not its own", shareNames[what.kind], pid)
					}
					owner[what] = t.PID.Num()
				}
			}
		}
	}
	if len(threads) > 0 {
		p.threadTerminals(threads, r)
	}
}

func (p *Plan) threadTerminals(threads map[snapshot.ObjectID]int, r *images.Report) {
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

// String describes the birth for people.
func (b Birth) String() string {
	s := fmt.Sprintf("thread %d by %d", b.TID, b.By)
	for share := ShareFiles; share <= ShareFS; share <<= 1 {
		if b.Share&share == 0 {
			s += ", with a copy of " + shareNames[share]
		}
	}
	return s
}
