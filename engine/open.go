//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/epoll"
	"stasis.example/engine/internal/state/eventfd"
	"stasis.example/engine/internal/state/pipes"
	"stasis.example/engine/internal/state/regfile"
	"stasis.example/engine/internal/state/rpcsock"
	"stasis.example/engine/internal/state/signalfd"
	"stasis.example/engine/internal/state/timerfd"
	"stasis.example/engine/internal/state/tty"
)

// open opens the files of the plan, before there is a process.
func (r *restore) open() error {
	makeRoom(r.plan.Tree)
	r.ghosts = regfile.Ghosts{Kernel: r.kernel, Dir: r.dir, Tree: r.plan.Tree}
	return openFiles(r.plan, &r.files, r.inherit, &r.ghosts)
}

// makeRoom makes room for the descriptors that there will be here, in one step. The kernel makes the table of a program that has threads
// larger by doubling it, and each time waits until all processors have noticed (fs/file.c, expand_fdtable), which takes milliseconds.
func makeRoom(t *snapshot.Tree) {
	last := 0
	for _, table := range t.Tables {
		for _, s := range table.Slots {
			last = max(last, s.FD)
		}
	}
	last += 2 * len(t.Files) // each is opened, and has another number, behind the tree's, while it is handed on
	const always = 64        // NR_OPEN_DEFAULT: what every program has room for
	var limit unix.Rlimit
	if last < always || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur == 0 {
		return // without it things only take longer
	}
	last = int(min(uint64(last), limit.Cur-1))
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, last); err == nil {
		_ = unix.Close(high)
	}
}

// An opener opens the files of a plan.
type opener struct {
	files   *apply.Files
	inherit map[string]*os.File
	ghosts  *regfile.Ghosts
	nodes   map[snapshot.FileID]*snapshot.Regular // files that have a name
	pipes   map[snapshot.PipeID]*pipes.Pipe
	names   regfile.Names
	own     int // the terminal of whoever restores
}

// maxComplaints is how many files are tried after the first that could not be opened: who puts back one wants to know of the
// others.
const maxComplaints = 20

// openFiles opens all files of a plan, in order. Without a root of their own, names are looked up below this program's.
// Where one cannot be opened, none is left open.
func openFiles(p *plan.Plan, files *apply.Files, inherit map[string]*os.File, ghosts *regfile.Ghosts) (err error) {
	if files.Root == nil {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("the root directory: %w", err)
		}
		files.Root = os.NewFile(uintptr(fd), "/")
		defer func() { _ = files.Root.Close(); files.Root = nil }()
	}
	o := &opener{
		files: files, inherit: inherit, ghosts: ghosts, nodes: make(map[snapshot.FileID]*snapshot.Regular), pipes: make(map[snapshot.PipeID]*pipes.Pipe), own: -1,
	}
	defer o.close()
	for _, f := range p.Tree.Files {
		if reg, ok := f.Object.(*snapshot.Regular); ok {
			o.nodes[f.ID] = reg
		}
	}
	files.Expect(len(p.Opens))
	var errs []error
	for i := range p.Opens {
		err := o.open(&p.Opens[i])
		if err != nil {
			errs = append(errs, err)
		}
		if len(errs) > maxComplaints || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			break
		}
	}
	if len(errs) == 0 {
		errs = append(errs, ghosts.Finish())
	}
	if err := errors.Join(errs...); err != nil {
		files.Close()
		return err
	}
	return nil
}

// close gives up what only served to open.
func (o *opener) close() {
	for _, p := range o.pipes {
		p.Close()
	}
	o.ghosts.Close()
	o.names.Close()
	if o.own > unix.Stderr {
		_ = unix.Close(o.own)
	}
}

// open opens a file, for itself and for mappings.
func (o *opener) open(what *plan.Open) error {
	f := what.File
	if what.How == plan.OpenLate {
		if o.files.Late == nil {
			o.files.Late = make(map[snapshot.FileID]bool)
		}
		o.files.Late[f.ID] = true
		return nil
	}
	if what.Itself {
		file, err := o.once(what)
		if err != nil {
			return fmt.Errorf("file %d: %w", f.ID, err)
		}
		o.files.Add(f.ID, file)
		if err := signalOf(file, f); err != nil {
			return fmt.Errorf("file %d: %w", f.ID, err)
		}
	}
	for _, flags := range what.Map {
		file, err := o.mapping(what, flags)
		if err != nil {
			return fmt.Errorf("file %d, to be mapped: %w", f.ID, err)
		}
		o.files.AddMapping(f.ID, flags, file)
	}
	return nil
}

func (o *opener) once(what *plan.Open) (*apply.File, error) {
	f := what.File
	switch what.How {
	case plan.OpenInherit:
		return o.inherited(what.Key)
	case plan.OpenPath:
		return o.named(o.nodes[f.ID], f.Flags)
	case plan.OpenPipe, plan.OpenFIFO:
		return o.end(what)
	case plan.OpenTTY:
		if o.own < 0 {
			o.own = tty.Own()
		}
		return tty.Open(o.own, what.Terminal, f)
	case plan.Create:
		return create(f)
	}
	return nil, fmt.Errorf("nobody knows how to open a %s: %v", f.Object.Kind(), what.How)
}

// named opens a file that has a name, or had one.
func (o *opener) named(f *snapshot.Regular, flags uint32) (*apply.File, error) {
	if f.Ghost != 0 {
		return o.ghosts.Open(o.files, f, flags)
	}
	if link := o.nodes[f.Link]; link != nil {
		return o.ghosts.OpenLinked(o.files, link, f, flags)
	}
	return o.names.Open(o.files, f, flags)
}

// inherited duplicates a file that was handed in. It is used as it is: its flags and its offset are whoever's who has it.
func (o *opener) inherited(key string) (*apply.File, error) {
	given := o.inherit[key]
	if given == nil {
		return nil, fmt.Errorf("no file was handed in for %q", key)
	}
	fd, err := unix.FcntlInt(given.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the file that was handed in for %q: %w", key, err)
	}
	return apply.NewFile(fd), nil
}

func (o *opener) mapping(what *plan.Open, flags uint32) (*apply.File, error) {
	switch what.How {
	case plan.OpenInherit:
		return o.inherited(what.Key)
	case plan.OpenPath:
		// The offset does not matter.
		return o.named(o.nodes[what.File.ID], flags)
	}
	return nil, fmt.Errorf("a %s cannot be mapped", what.File.Object.Kind())
}

// end opens an end of a pipe or a fifo, which the first of them makes.
func (o *opener) end(what *plan.Open) (*apply.File, error) {
	p := o.pipes[what.Pipe.ID]
	if p == nil {
		var err error
		if fifo, ok := what.File.Object.(*snapshot.FIFOEnd); ok {
			node := o.nodes[fifo.Node]
			if node == nil {
				return nil, fmt.Errorf("a fifo whose name, file %d, is not there", fifo.Node)
			}
			p, err = pipes.MakeFIFO(func(flags uint32) (*apply.File, error) { return o.named(node, flags) }, what.Pipe.Content)
		} else {
			p, err = pipes.Make(what.Pipe.Content)
		}
		if err != nil {
			return nil, fmt.Errorf("pipe %d: %w", what.Pipe.ID, err)
		}
		o.pipes[what.Pipe.ID] = p
	}
	return p.End(what.File.Flags)
}

// create makes a file that has no name, and gives it its flags.
func create(f *snapshot.File) (file *apply.File, err error) {
	switch object := f.Object.(type) {
	case *snapshot.EventFD:
		file, err = eventfd.Open(object)
	case *snapshot.SignalFD:
		file, err = signalfd.Open(object)
	case *snapshot.TimerFD:
		file, err = timerfd.Open(object)
	case *snapshot.Epoll:
		file, err = epoll.Open()
	case *snapshot.RPCSocket:
		file, err = rpcsock.Open(object, restoredAnswer())
	default:
		return nil, fmt.Errorf("nobody knows how to make a %s", f.Object.Kind())
	}
	if err != nil {
		return nil, err
	}
	if err := apply.SetFlags(int(file.Fd()), f.Flags); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("a %s: %w", f.Object.Kind(), err)
	}
	return file, nil
}

// signalOf says which signal a file's owner gets. Who that is can be said only when the owner is there.
func signalOf(file *apply.File, f *snapshot.File) error {
	const setSignal = 10 // F_SETSIG
	if f.Owner.Signal == 0 || f.Flags&unix.O_PATH != 0 {
		return nil
	}
	if _, err := unix.FcntlInt(file.Fd(), setSignal, int(f.Owner.Signal)); err != nil {
		return fmt.Errorf("fcntl(F_SETSIG, %d): %w", f.Owner.Signal, err)
	}
	return nil
}

// watches returns what each process adds to its epoll files.
func watches(p *plan.Plan) map[int][]apply.Watch {
	m := make(map[int][]apply.Watch, len(p.Watches))
	for _, w := range p.Watches {
		m[w.Task] = append(m[w.Task], apply.Watch{Thread: w.Thread, FD: w.FD, Items: w.Items})
	}
	return m
}
