//go:build amd64

package collect

import (
	"encoding/binary"
	"iter"
	"strconv"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// A Tree is a tree of processes that stand still.
type Tree struct {
	Kernel    *linux.Kernel
	Proc      proc.FS
	Processes []*Process // parents before children
	Snapshot  *snapshot.Tree
	Report    *images.Report
	Files     Files

	// Outer allows a session, a process group and a terminal that are not the tree's own: those of the shell it was started
	// from.
	Outer bool

	// RPCSocket is the inode of the socket on which a process of the tree has asked for the dump; 0 where none has.
	RPCSocket uint64

	// External are the files and the like that are not the tree's own, as --external names them: "file[MNT:INODE]" (in
	// hexadecimal), "tty[RDEV:DEV]". Who restores the tree hands them in.
	External []string
	// BuildIDs asks for the build-ids of programs and libraries, by which a restore tells one build from another.
	BuildIDs bool
	// GhostLimit is how many bytes a file without a name may have to be saved.
	GhostLimit uint64
	// LinkRemap allows names to be made for files that have lost theirs and have others. Links are those that were made.
	LinkRemap bool
	Links     []Link
	// Ghosts are files of each inode that has no name: what is in it is read through them.
	Ghosts map[snapshot.GhostID]*File

	namespaces map[uint64]uint32 // by inode
}

// A Link is a name that was made: in a directory that is open.
type Link struct {
	Dir  int
	Name string
	Path string
}

// A Process is a process of the tree.
type Process struct {
	PID    int
	Parent int             // 0 for the root
	Remote *remote.Process // nil for a zombie
	Dir    proc.Dir
	Stat   proc.Stat
	Task   *snapshot.Task // made by package proctree

	Threads []*Thread // the living
	PIDFD   int       // -1 for a zombie

	// Space says that this is the process for which its address space is collected: of several that share it the first. Table
	// and FS say the same of descriptors and working directory, Handlers of signal dispositions.
	Space, Table, FS, Handlers bool

	// MapLinks are what the links to files that are mapped say, from when package mm reads the mappings until it finds the files.
	MapLinks []string

	asks   []func(*Batch)
	status *proc.Status
}

// A Thread is a thread of a process.
type Thread struct {
	Remote   *remote.Thread
	Process  *Process
	Dir      proc.Dir
	Snapshot *snapshot.Thread // made by package proctree

	// Table and FS say that the thread has a descriptor table, or a working directory, that is not the process's, and is the first
	// that has it.
	Table, FS bool

	asks   []func(*Batch)
	status *proc.Status
}

// Live is the task by which the kernel shows what the process has: its first living thread. Of a zombie it is the process.
func (p *Process) Live() int {
	if p.Remote == nil {
		return p.PID
	}
	return p.Remote.Live()
}

// Where names the process in reports.
func (p *Process) Where() string { return "process " + strconv.Itoa(p.PID) }

// Path returns the path of a file in the process's directory of /proc.
func (p *Process) Path(name string) string { return p.Holder().Path(name) }

// Status reads status, once.
func (p *Process) Status() (*proc.Status, error) { return read(&p.status, p.Dir) }

// Where names the thread in reports.
func (th *Thread) Where() string {
	if th.Remote.TID == th.Process.PID {
		return th.Process.Where()
	}
	return th.Process.Where() + ": thread " + strconv.Itoa(th.Remote.TID)
}

// Status reads status, once.
func (th *Thread) Status() (*proc.Status, error) {
	if th.Remote.TID == th.Process.Live() {
		return th.Process.Status()
	}
	return read(&th.status, th.Dir)
}

// Forget lets go of what was read once for several kinds.
func (t *Tree) Forget() {
	for p := range t.Alive() {
		p.status = nil
		for _, th := range p.Threads {
			th.status = nil
		}
	}
}

func read(into **proc.Status, d proc.Dir) (*proc.Status, error) {
	if *into == nil {
		s, err := d.Status()
		if err != nil {
			return nil, err
		}
		*into = &s
	}
	return *into, nil
}

// Alive iterates over the processes that are no zombies.
func (t *Tree) Alive() iter.Seq[*Process] {
	return func(yield func(*Process) bool) {
		for _, p := range t.Processes {
			if p.Remote != nil && !yield(p) {
				return
			}
		}
	}
}

// Threads iterates over the living threads of all processes.
func (t *Tree) Threads() iter.Seq[*Thread] {
	return func(yield func(*Thread) bool) {
		for p := range t.Alive() {
			for _, th := range p.Threads {
				if !yield(th) {
					return
				}
			}
		}
	}
}

// Namespace returns the number of a namespace: equal ones have equal numbers. Those of the program itself are asked for first
// and so have the same numbers in every dump.
func (t *Tree) Namespace(ns proc.Namespace) uint32 {
	if t.namespaces == nil {
		t.namespaces = make(map[uint64]uint32)
	}
	n, ok := t.namespaces[ns.Inode]
	if !ok {
		n = uint32(len(t.namespaces) + 1)
		t.namespaces[ns.Inode] = n
	}
	return n
}

// Word is the first number in the memory of a process: little-endian, as on all architectures that there are.
func Word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// Word32 is the first 32-bit number.
func Word32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
