package images

import (
	"iter"
	"slices"
	"strconv"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// A Set is the entries of a dump.
type Set struct {
	Inventory entry.Inventory
	Processes []*Process // in the order of pstree.img
	Files     []entry.File
	Remaps    []entry.RemapFilePath     // remap-fpath.img
	Ghosts    []Ghost                   // ghost-file-N.img, without what is in them
	FDInfo    map[uint32][]entry.FDInfo // by files_id
	Pipes     []PipeData                // pipes-data.img
	FIFOs     []PipeData                // fifo-data.img
	Terminals []entry.TTYInfo
	Typed     []entry.TTYData // tty-data.img
	TimeNS    *entry.TimeNS   // see TimeNSID; nil for none

	// Actions and Limits are what was encoded last of signal handlers and resource limits: processes that were forked mostly have the
	// same.
	Actions struct {
		Of *snapshot.Actions
		As []entry.SA
	}
	Limits struct {
		Of []snapshot.Limit
		As *entry.TaskRlimits
	}

	// Briefly says that what is encoded of a process is gone when the next one is: memory is used again.
	Briefly bool
	vmas    []entry.VMA

	byID   map[uint32]*entry.File
	haunts map[uint32]*entry.RemapFilePath // by the file that has lost its name
}

// A Process is the entries of a process.
type Process struct {
	Entry entry.PSTree
	Cores []*entry.Core // of the threads in the order of Entry.Threads, never nil; of a dead process the first only
	IDs   *entry.TaskKobjIDs
	MM    *entry.MM // nil for the dead, and where another process has it
	FS    *entry.FS // nil for the dead, and where another process has it

	// ThreadFS are those of threads that have one of their own, and are the first that have it, by their numbers. Which threads
	// have something of their own is in the IDs of their cores.
	ThreadFS map[uint32]*entry.FS
}

// A Ghost is the entry of a file without a name. What is in the file follows it in its image, and is written and read apart.
type Ghost struct {
	ID    uint32
	Entry entry.GhostFile
}

// PipeData is an entry of pipes-data.img or fifo-data.img with what follows it.
type PipeData struct {
	Entry entry.PipeData
	Data  []byte
}

// PID returns the number of the process.
func (p *Process) PID() int { return int(p.Entry.PID) }

// Dead reports whether the process is a zombie.
func (p *Process) Dead() bool {
	tc := p.TC()
	return tc != nil && (tc.TaskState == entry.TaskDead || tc.TaskState == entry.TaskZombie)
}

// Apart iterates over the threads that have a descriptor table or a working directory of their own: the places of their cores,
// and the numbers of what they have.
func (p *Process) Apart() iter.Seq2[int, *entry.TaskKobjIDs] {
	return func(yield func(int, *entry.TaskKobjIDs) bool) {
		for i, core := range p.Cores {
			// In a first thread's core old images have what now is in ids-PID.img.
			if i > 0 && i < len(p.Entry.Threads) && core.IDs != nil && !yield(i, core.IDs) {
				return
			}
		}
	}
}

// TC returns what the core of the first thread says about the process, nil where it does not.
func (p *Process) TC() *entry.TaskCore {
	if len(p.Cores) == 0 {
		return nil
	}
	return p.Cores[0].TC
}

// Core returns the name of the image that has the core of a process.
func (p *Process) Core() string { return CoreName(p.PID()) }

// CoreName returns the name of the image that has the core of a thread.
func CoreName(tid int) string { return image.Core.File(uint64(tid)) }

// File returns the entry of a file by its number, nil for none. It is for sets that were read.
func (s *Set) File(id uint32) *entry.File { return s.byID[id] }

// Remap returns what stands for a file that has lost its name, nil for one that has not. It is for sets that were read.
func (s *Set) Remap(id uint32) *entry.RemapFilePath { return s.haunts[id] }

// StasisOnly marks the set as one that CRIU cannot restore and must refuse.
func (s *Set) StasisOnly() { s.Inventory.ImgVersion = image.VersionStasis }

// Alive iterates over the processes that are no zombies with the task that each is decoded to or encoded from. The two lists
// have been made to fit by the package that does the tree. All of them have a TaskCore.
func (s *Set) Alive(t *snapshot.Tree) iter.Seq2[*Process, *snapshot.Task] {
	return func(yield func(*Process, *snapshot.Task) bool) {
		for i, p := range s.Processes {
			if i >= len(t.Tasks) {
				return
			}
			if task := t.Tasks[i]; (task.State == snapshot.Running || task.State == snapshot.Stopped) && !yield(p, task) {
				return
			}
		}
	}
}

// VMAs returns room for entries of mappings.
func (s *Set) VMAs(n int) []entry.VMA {
	if !s.Briefly {
		return make([]entry.VMA, 0, n)
	}
	s.vmas = slices.Grow(s.vmas[:0], n)
	return s.vmas
}

// A ThreadOf is a thread of a process, with its core.
type ThreadOf struct {
	Image string // its name, for reports
	Core  *entry.Core
	Task  *snapshot.Task
	*snapshot.Thread
	Leader bool
}

// Threads iterates over the threads of all processes that are no zombies, but for leaders that have exited. All of them have
// a ThreadCore.
func (s *Set) Threads(t *snapshot.Tree) iter.Seq[ThreadOf] {
	return func(yield func(ThreadOf) bool) {
		for p, task := range s.Alive(t) {
			for i, thread := range task.Threads {
				if i >= len(p.Cores) || p.Cores[i].ThreadCore == nil {
					continue
				}
				if !yield(ThreadOf{CoreName(thread.TID.Num()), p.Cores[i], task, thread, i == 0}) {
					return
				}
			}
		}
	}
}

// FilesOf iterates over the files of a type with what each is decoded to or encoded from.
func (s *Set) FilesOf(t *snapshot.Tree, typ entry.FDType) iter.Seq2[*entry.File, *snapshot.File] {
	return func(yield func(*entry.File, *snapshot.File) bool) {
		for i := range s.Files {
			if i >= len(t.Files) {
				return
			}
			if s.Files[i].Type == typ && !yield(&s.Files[i], t.Files[i]) {
				return
			}
		}
	}
}

// Unknown notes fields that newer programs have written and that nothing here reads.
func (r *Report) Unknown(where string, m entry.Message, unknown []byte) {
	if len(unknown) == 0 {
		return
	}
	for _, num := range fieldNumbers(unknown) {
		if num != extension {
			r.Note("%s: field %d of %s is not known and not restored", where, num, m.Schema())
		}
	}
}

// FileName is where entries of files are, for reports.
func FileName(id uint32) string {
	return image.Files.File(0) + ": file " + strconv.FormatUint(uint64(id), 10)
}

// UnknownInFile is [Report.Unknown] for an entry of a file, whose place has no name unless it is needed: there may be many.
func (r *Report) UnknownInFile(id uint32, m entry.Message, unknown []byte) {
	if len(unknown) > 0 {
		r.Unknown(FileName(id), m, unknown)
	}
}

// never are flags of open(2) that an open file does not have and that a restore must never pass: O_CREAT, O_EXCL, O_TRUNC and
// the two that O_TMPFILE adds a bit to.
const never = 0o100 | 0o200 | 0o1000 | 0o20000000

// DecodeFile fills what all files have.
func DecodeFile(e *entry.File, f *snapshot.File, flags uint32, owner *entry.Fown, r *Report) {
	r.UnknownInFile(e.ID, owner, owner.Unknown)
	if flags&never != 0 {
		r.Damaged(FileName(e.ID), "flags %#o would make, empty or hide a file", flags)
	}
	f.Flags = flags
	f.Owner = snapshot.Owner{Type: owner.PIDType, PID: int(int32(owner.PID)), Signal: owner.Signum, UID: owner.UID, EUID: owner.EUID}
	if owner.PID > 1<<22 || owner.Signum > snapshot.NumSignals || owner.PIDType > 2 {
		r.Damaged(FileName(e.ID), "its owner: type %d, pid %d, signal %d", owner.PIDType, owner.PID, owner.Signum)
	}
}

// Fown returns the owner of a file as images have it.
func Fown(f *snapshot.File) entry.Fown {
	o := &f.Owner
	return entry.Fown{UID: o.UID, EUID: o.EUID, Signum: o.Signal, PIDType: o.Type, PID: uint32(o.PID)}
}

// Filled reports whether an entry of files.img has what its type says, and reports it if not.
func Filled[T any](e *entry.File, m *T, id func(*T) uint32, r *Report) bool {
	if m == nil {
		r.Damaged(FileName(e.ID), "it is of type %v and has nothing of one", e.Type)
		return false
	}
	if got := id(m); got != e.ID {
		r.Damaged(FileName(e.ID), "it has two numbers, the other is %d", got)
	}
	return true
}

// TimeNSID is the number of the image of the clocks: 0 for those that the dump had itself, else the number of the time namespace that
// the tree had.
func (s *Set) TimeNSID() uint64 {
	if len(s.Processes) == 0 || s.Processes[0].IDs == nil || s.Inventory.RootIDs == nil {
		return 0
	}
	if id := s.Processes[0].IDs.GetTimeNSID(); id != s.Inventory.RootIDs.GetTimeNSID() {
		return uint64(id)
	}
	return 0
}
