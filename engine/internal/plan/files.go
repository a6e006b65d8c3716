package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// How says how a file comes to be open.
type How uint8

// The ways.
const (
	OpenPath    How = iota + 1 // by its name, under the root directory of the restore
	OpenFIFO                   // likewise, and filled: the name is that of the node
	OpenPipe                   // pipe2, or one end of a pipe opened again
	Create                     // eventfd2, signalfd4, timerfd_create, epoll_create1
	OpenTTY                    // the terminal of whoever restores
	OpenInherit                // handed in by whoever restores, under Key
	OpenLate                   // by its name, by the process that has it: a file in /proc of a process of the tree
)

var howNames = [...]string{OpenPath: "open", OpenFIFO: "open and fill", OpenPipe: "pipe", Create: "create", OpenTTY: "terminal", OpenInherit: "inherit", OpenLate: "open when the process is there"}

// String returns a word for people.
func (h How) String() string {
	if int(h) < len(howNames) && howNames[h] != "" {
		return howNames[h]
	}
	return fmt.Sprintf("How(%d)", uint8(h))
}

// An Open is how one file comes to be open. All are opened by the engine, once, in this order; tasks take them with pidfd_getfd. So
// what fails for want of a file fails before there is a process.
type Open struct {
	File *snapshot.File
	How  How
	Key  string // of OpenInherit
	Pipe *Pipe  // of OpenPipe and OpenFIFO
	// Terminal is which sort of terminal an OpenTTY opens.
	Terminal snapshot.TerminalKind

	// Itself says that the file is opened with its own flags. A file that is only mapped is not: mappings are made of one that is
	// opened for them, once for each of the flags in Map.
	Itself bool
	Map    []uint32 // in ascending order
}

// A Pipe is what is to be known of a pipe or fifo that Opens make. The first Open that has it makes it. Where no end of one side is
// in the tree, the engine opens one to fill it, and closes it when all have taken theirs.
type Pipe struct {
	ID               snapshot.PipeID
	Content          *snapshot.Pipe // nil for empty and of the usual capacity
	Readers, Writers int            // ends that the tree has
	FIFO             bool
}

// Names of device files that are opened like any others: those that have no state. What a name is of, only the machine knows:
// the engine looks at the device's number before it opens it.
const (
	modeMask = 0o170000
	modeSock = 0o140000
	modeReg  = 0o100000
	modeBlk  = 0o060000
	modeDir  = 0o040000
	modeChr  = 0o020000
)

const (
	oAccMode = 3
	oRdOnly  = 0
	oRdWr    = 2
	oPath    = 0o10000000
)

type opener struct {
	plan  *Plan
	r     *images.Report
	files map[snapshot.FileID]*snapshot.File
	used  map[snapshot.FileID]bool
	maps  map[snapshot.FileID][]uint32 // the flags with which a file has to be opened for mappings
	nodes map[snapshot.FileID]bool     // names of fifos and terminals: not opened for themselves
	// places are working directories, root directories and programs.
	places map[snapshot.FileID]bool
	pipes  map[snapshot.PipeID]*Pipe

	terminals map[uint32]*snapshot.Terminal
	tasks     map[int]bool
	tables    map[snapshot.FileID]int // how many descriptor tables have a file
}

// openFiles decides how each file comes to be open.
func (p *Plan) openFiles(r *images.Report) {
	o := &opener{
		plan: p, r: r, files: make(map[snapshot.FileID]*snapshot.File, len(p.Tree.Files)), used: make(map[snapshot.FileID]bool, len(p.Tree.Files)),
		places: make(map[snapshot.FileID]bool), maps: make(map[snapshot.FileID][]uint32), nodes: make(map[snapshot.FileID]bool), pipes: make(map[snapshot.PipeID]*Pipe),
		terminals: make(map[uint32]*snapshot.Terminal), tasks: make(map[int]bool), tables: make(map[snapshot.FileID]int, len(p.Tree.Files)),
	}
	for _, t := range p.Tree.Terminals {
		o.terminals[t.ID] = t
	}
	for _, t := range p.Tree.Tasks {
		o.tasks[t.PID.Num()] = true
	}
	for _, f := range p.Tree.Files {
		o.files[f.ID] = f
	}
	o.users()
	o.findPipes()
	p.Opens = make([]Open, 0, len(p.Tree.Files))
	for _, f := range p.Tree.Files {
		switch {
		case f.Object == nil, o.nodes[f.ID] && !o.used[f.ID] && o.maps[f.ID] == nil:
		case !o.used[f.ID] && o.maps[f.ID] == nil:
			r.Note("%s: nobody has it, and it is not opened", images.FileName(uint32(f.ID)))
		default:
			o.open(f)
		}
	}
}

// users finds out which files somebody has, and checks what they have them for.
func (o *opener) users() {
	t := o.plan.Tree
	last := make(map[snapshot.FileID]*snapshot.Table) // that has a file
	for _, table := range t.Tables {
		for _, s := range table.Slots {
			o.used[s.File] = true
			if last[s.File] != table {
				last[s.File] = table
				o.tables[s.File]++
			}
		}
	}
	for _, c := range t.FSContexts {
		o.directory(c.Cwd, "a working directory")
		o.directory(c.Root, "a root directory")
	}
	for _, s := range t.Spaces {
		o.used[s.Exe], o.places[s.Exe] = true, true
		o.mapped(s.Exe, "a program")
		for i := range s.VMAs {
			v := &s.VMAs[i]
			if !v.Kind.OfFile() {
				continue
			}
			if at, found := slices.BinarySearch(o.maps[v.File], v.OpenFlags); !found {
				o.maps[v.File] = slices.Insert(o.maps[v.File], at, v.OpenFlags)
				o.mapped(v.File, "mapped")
			}
		}
	}
	for _, f := range t.Files {
		switch object := f.Object.(type) {
		case *snapshot.FIFOEnd:
			o.nodes[object.Node] = true
		case *snapshot.TTY:
			o.nodes[object.Node] = object.Node != 0
		case *snapshot.Regular:
			o.nodes[object.Link] = object.Link != 0
		}
	}
}

func (o *opener) regular(id snapshot.FileID, what string) *snapshot.Regular {
	f := o.files[id]
	if f == nil || f.Object == nil {
		return nil // said by those who looked for it
	}
	object, ok := f.Object.(*snapshot.Regular)
	if !ok {
		o.r.Unsupported(images.FileName(uint32(id)), "a %s is %s", f.Object.Kind(), what)
	}
	return object
}

func (o *opener) directory(id snapshot.FileID, what string) {
	o.used[id], o.places[id] = true, true
	if f := o.regular(id, what); f != nil && f.Mode != nil && *f.Mode&modeMask != modeDir {
		o.r.Damaged(images.FileName(uint32(id)), "%s is %s, and no directory", f.Path.Name, what)
	}
}

func (o *opener) mapped(id snapshot.FileID, what string) {
	f := o.regular(id, what)
	if f == nil || f.Mode == nil {
		return
	}
	switch *f.Mode & modeMask {
	case modeReg:
	case modeChr:
		if what == "mapped" && f.Path.Name == "/dev/zero" {
			return // is memory
		}
		fallthrough
	default:
		o.r.Unsupported(images.FileName(uint32(id)), "%s is %s, and no regular file", f.Path.Name, what)
	}
}

func (o *opener) findPipes() {
	for _, f := range o.plan.Tree.Files {
		var id snapshot.PipeID
		fifo := false
		switch object := f.Object.(type) {
		case *snapshot.PipeEnd:
			id = object.Pipe
		case *snapshot.FIFOEnd:
			id, fifo = object.Pipe, true
		default:
			continue
		}
		p := o.pipes[id]
		if p == nil {
			p = &Pipe{ID: id, FIFO: fifo}
			o.pipes[id] = p
		}
		if !o.used[f.ID] {
			continue
		}
		if f.Flags&oAccMode != oRdOnly {
			p.Writers++
		}
		if f.Flags&oAccMode == oRdOnly || f.Flags&oAccMode == oRdWr {
			p.Readers++
		}
	}
	for _, content := range o.plan.Tree.Pipes {
		if p := o.pipes[content.ID]; p != nil {
			p.Content = content
		} else if len(content.Data) > 0 {
			o.r.Note("%s: nobody has pipe %d, and what is in it is lost", image.PipesData.File(0), content.ID)
		}
	}
}

// open plans one file.
func (o *opener) open(f *snapshot.File) {
	open := Open{File: f, Key: o.inheritKey(f), Itself: o.used[f.ID], Map: o.maps[f.ID]}
	inherited := open.Key != "" && slices.Contains(o.plan.Options.Inherit, open.Key)
	switch object := f.Object.(type) {
	case *snapshot.Regular:
		open.How = OpenPath
		if !inherited {
			o.path(f, object)
			if pid := o.late(object); pid != 0 && object.Ghost == 0 {
				open.How = OpenLate
				o.onlyOne(f, pid)
			}
		}
	case *snapshot.PipeEnd:
		open.How, open.Pipe = OpenPipe, o.pipes[object.Pipe]
	case *snapshot.FIFOEnd:
		open.How, open.Pipe = OpenFIFO, o.pipes[object.Pipe]
	case *snapshot.TTY:
		open.How = OpenTTY
		if !inherited {
			open.Terminal = o.terminal(images.FileName(uint32(f.ID)), object)
		}
	default:
		open.How = Create
	}
	if inherited {
		open.How = OpenInherit
	} else {
		open.Key = ""
	}
	o.plan.Opens = append(o.plan.Opens, open)
}

func (o *opener) path(f *snapshot.File, object *snapshot.Regular) {
	var what string
	switch {
	case object.External:
		what = "it is external: hand it in, by the key %q"
	case object.Mode == nil || f.Flags&oPath != 0:
		return // a name only opens as a name whatever it is of
	case *object.Mode&modeMask == modeSock:
		what = "%s is a socket"
	case *object.Mode&modeMask == modeBlk:
		what = "%s is a block device"
	default:
		return
	}
	o.r.Unsupported(images.FileName(uint32(f.ID)), what, object.Path.Name)
}

// late returns the process of the tree whose directory in /proc a file is in, 0 for none.
func (o *opener) late(f *snapshot.Regular) int {
	rest, ok := strings.CutPrefix(f.Path.Name, "/proc/")
	if !ok {
		return 0
	}
	first, _, _ := strings.Cut(rest, "/")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	if o.tasks[pid] {
		return pid
	}
	return 0
}

// onlyOne refuses a file that is opened late and that one descriptor table is not all that has it.
func (o *opener) onlyOne(f *snapshot.File, pid int) {
	if o.tables[f.ID] != 1 || o.maps[f.ID] != nil || o.places[f.ID] {
		o.r.Unsupported(images.FileName(uint32(f.ID)), "%s is of process %d, which is not there before the file is opened, and more than one process has it open, or somebody is in it or has it mapped",
			f.Object.(*snapshot.Regular).Path.Name, pid)
	}
}

// inheritKey returns the key by which whoever restores may hand in a file, empty for those that cannot be.
func (o *opener) inheritKey(f *snapshot.File) string {
	switch object := f.Object.(type) {
	case *snapshot.Regular:
		if object.External {
			return object.Path.Name
		}
		return strings.TrimPrefix(object.Path.Name, "/")
	case *snapshot.PipeEnd:
		return fmt.Sprintf("pipe:[%d]", object.Pipe)
	case *snapshot.TTY:
		if terminal := o.terminals[object.Terminal]; terminal != nil {
			return terminalKey(terminal)
		}
	}
	return ""
}

// ptmx is the device that makes pseudoterminals: 5, 2.
const ptmx = 5<<8 | 2

// terminal checks one that is opened and not handed in, and returns its kind.
func (o *opener) terminal(where string, f *snapshot.TTY) snapshot.TerminalKind {
	t := o.terminals[f.Terminal]
	if t == nil {
		return 0 // which has been said
	}
	root := o.plan.Tree.Root()
	switch {
	case t.Kind == snapshot.ExternalTTY:
		o.r.Unsupported(where, "it is external: hand it in, by the key %q", terminalKey(t))
	case t.Device == ptmx:
		o.r.Unsupported(where, "the master of a pseudoterminal: not restored by the built-in engine")
	case !o.plan.Options.ShellJob:
		o.r.Unsupported(where, "a terminal: restore it as a shell job")
	case root == nil || root.Session == root.PID.Num() || t.Session != 0 && t.Session != root.Session:
		o.r.Unsupported(where, "a terminal of session %d, which is not the one that the shell job is in", t.Session)
	}
	return t.Kind
}

// terminalKey is the key by which a terminal is handed in, empty for one that cannot be.
func terminalKey(t *snapshot.Terminal) string {
	if t.FSDevice == nil {
		return ""
	}
	return fmt.Sprintf("tty[%x:%x]", t.Device, *t.FSDevice)
}

// A Watch is what one task adds to an epoll file.
type Watch struct {
	Epoll  snapshot.FileID
	Task   int // who adds
	Thread int // of Task, which has a table of its own; 0 for the first
	FD     int // its number of the epoll file
	Items  []snapshot.EpollItem
}

// watch decides who fills epoll files, inner ones before those that watch them.
func (p *Plan) watch(r *images.Report) {
	holders := p.epollHolders()
	var list []Watch
	for _, f := range p.Tree.Files {
		if e, ok := f.Object.(*snapshot.Epoll); ok && len(e.Items) > 0 {
			if w, ok := watcher(f, e, holders[f.ID], r); ok {
				list = append(list, w)
			}
		}
	}
	p.Watches = orderWatches(list, r)
}

// A user is the first task that has a descriptor table, or where there is none the first thread that has it for itself.
type user struct{ task, thread int }

// users finds out who has the descriptor tables.
func (p *Plan) users() map[snapshot.ObjectID]user {
	users := make(map[snapshot.ObjectID]user)
	add := func(table snapshot.ObjectID, u user) {
		if _, ok := users[table]; !ok && table != 0 {
			users[table] = u
		}
	}
	for _, t := range p.Tree.Tasks {
		if t.State == snapshot.Dead {
			continue
		}
		add(t.Table, user{t.PID.Num(), 0})
	}
	for _, t := range p.Tree.Tasks { // those that no process has
		for _, th := range t.Threads {
			add(th.Table, user{t.PID.Num(), th.TID.Num()})
		}
	}
	return users
}

// A holder has a file in its descriptor table; fd is the first number of it there.
type holder struct {
	user
	table *snapshot.Table
	fd    int
}

// epollHolders finds out who has the epoll files.
func (p *Plan) epollHolders() map[snapshot.FileID][]holder {
	holders := make(map[snapshot.FileID][]holder)
	for _, f := range p.Tree.Files {
		if _, ok := f.Object.(*snapshot.Epoll); ok {
			holders[f.ID] = nil
		}
	}
	users := p.users()
	for _, table := range p.Tree.Tables {
		u, used := users[table.ID]
		if !used {
			continue
		}
		for _, s := range table.Slots {
			if h, ok := holders[s.File]; ok && (len(h) == 0 || h[len(h)-1].table != table) {
				holders[s.File] = append(h, holder{u, table, s.FD})
			}
		}
	}
	return holders
}

// watcher finds a task that has an epoll file and all that it watches.
func watcher(f *snapshot.File, e *snapshot.Epoll, holders []holder, r *images.Report) (Watch, bool) {
	where := images.FileName(uint32(f.ID))
	numbers := make(map[int]bool, len(e.Items))
	for _, item := range e.Items {
		if numbers[item.FD] {
			r.Damaged(where, "it watches descriptor %d twice", item.FD)
			return Watch{}, false
		}
		numbers[item.FD] = true
	}
	missing := 0
	for _, h := range holders {
		items := make([]snapshot.EpollItem, 0, len(e.Items))
		for _, item := range e.Items {
			i, ok := slices.BinarySearchFunc(h.table.Slots, item.FD, func(s snapshot.Slot, fd int) int { return s.FD - fd })
			if !ok {
				missing = item.FD
				break
			}
			item.File = h.table.Slots[i].File
			items = append(items, item)
		}
		if len(items) == len(e.Items) {
			return Watch{Epoll: f.ID, Task: h.task, Thread: h.thread, FD: h.fd, Items: items}, true
		}
	}
	if len(holders) > 0 {
		r.Unsupported(where, "it watches descriptor %d, and no process that has the epoll file has that descriptor", missing)
	}
	return Watch{}, false
}

// orderWatches puts epoll files after those that they watch.
func orderWatches(list []Watch, r *images.Report) []Watch {
	at := make(map[snapshot.FileID]int, len(list))
	for i := range list {
		at[list[i].Epoll] = i
	}
	var ordered []Watch
	state := make([]uint8, len(list)) // 1 being visited, 2 done
	type frame struct{ w, item int }
	for i := range list {
		stack := []frame{{w: i}}
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			if state[f.w] == 2 {
				stack = stack[:len(stack)-1]
				continue
			}
			state[f.w] = 1
			if f.item == len(list[f.w].Items) {
				state[f.w] = 2
				ordered = append(ordered, list[f.w])
				stack = stack[:len(stack)-1]
				continue
			}
			inner, ok := at[list[f.w].Items[f.item].File]
			f.item++
			if !ok || state[inner] == 2 {
				continue
			}
			if state[inner] == 1 {
				r.Damaged(images.FileName(uint32(list[inner].Epoll)), "epoll files that watch each other in a circle")
				return nil
			}
			stack = append(stack, frame{w: inner})
		}
	}
	return ordered
}
