package kinds

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// An Encoder turns a snapshot into entries: what is of the whole tree at once, and what is of one process when it is told to. So
// a tree of many processes need not be there twice, and what only a process itself can tell may still come.
type Encoder struct {
	Set *images.Set

	tree     *snapshot.Tree
	report   *images.Report
	kinds    []Kind // of processes
	spaces   map[snapshot.ObjectID]*snapshot.Space
	handlers map[snapshot.ObjectID]*snapshot.Handlers
	owners   map[snapshot.ObjectID]int // of spaces: the first process that has each

	part snapshot.Tree // the process that is encoded
	one  images.Set    // what it is encoded into
}

// NewEncoder encodes what is of the whole tree. Problems go to the report, those of processes as well.
func NewEncoder(from *snapshot.Tree, r *images.Report) *Encoder {
	e := &Encoder{
		Set: &images.Set{}, tree: from, report: r, spaces: make(map[snapshot.ObjectID]*snapshot.Space),
		handlers: make(map[snapshot.ObjectID]*snapshot.Handlers), owners: make(map[snapshot.ObjectID]int),
	}
	for _, k := range All() {
		if k.Of == perTree {
			k.Encode(from, e.Set, r)
		} else {
			e.kinds = append(e.kinds, k)
		}
	}
	for _, s := range from.Spaces {
		e.spaces[s.ID] = s
	}
	for _, h := range from.Handlers {
		e.handlers[h.ID] = h
	}
	for i, t := range from.Tasks {
		if _, ok := e.owners[t.Space]; !ok {
			e.owners[t.Space] = i
		}
	}
	return e
}

// Briefly says that the entries of each process are forgotten before the next one is encoded.
func (e *Encoder) Briefly() { e.one.Briefly = true }

// Process encodes what is of one process, by its place in the tree.
func (e *Encoder) Process(i int) {
	task := e.tree.Tasks[i]
	part, one := &e.part, &e.one
	*part = snapshot.Tree{
		Arch: e.tree.Arch, PageSize: e.tree.PageSize, Tasks: e.tree.Tasks[i : i+1],
		Spaces: part.Spaces[:0], Handlers: part.Handlers[:0],
	}
	if s := e.spaces[task.Space]; s != nil {
		part.Spaces = append(part.Spaces, s)
	}
	if h := e.handlers[task.Handlers]; h != nil {
		part.Handlers = append(part.Handlers, h)
	}
	one.Processes = e.Set.Processes[i : i+1]
	for _, k := range e.kinds {
		k.Encode(part, one, e.report)
	}
	if e.owners[task.Space] != i {
		one.Processes[0].MM = nil
	}
	if one.Inventory.ImgVersion == image.VersionStasis {
		e.Set.StasisOnly()
	}
}

// Encode turns a whole snapshot into entries.
func Encode(from *snapshot.Tree, r *images.Report) *images.Set {
	e := NewEncoder(from, r)
	for i := range from.Tasks {
		e.Process(i)
	}
	return e.Set
}
