//go:build amd64

package apply

import (
	"fmt"
	"os"
	"path"
	"strconv"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// A Tree is a tree of processes that is being made.
type Tree struct {
	Kernel   *linux.Kernel
	Proc     proc.FS
	Snapshot *snapshot.Tree
	Files    *Files
	// Tasks are the processes that will be no zombies, parents before children.
	Tasks []*Task
	// Watches are what a process adds to its epoll files, by its number.
	Watches map[int][]Watch
	// Note keeps a remark for the log.
	Note func(format string, args ...any)
	// XLayout is how the processor lays out the extended state, once it was asked.
	XLayout *snapshot.XLayout
	// Actions are signal handlers as the kernel has them, those that were asked for last: processes that were forked mostly have the same.
	Actions struct {
		Of *snapshot.Actions
		As []byte
	}
	// Room is for the batches of all.
	Room Room
}

// A Watch is what a process adds to one epoll file.
type Watch struct {
	Thread int // who adds it, where that has descriptors of its own; 0 for the first thread
	FD     int // its number of the epoll file
	Items  []snapshot.EpollItem
}

// A Task is a process that is being made.
type Task struct {
	*snapshot.Task
	Tree    *Tree
	Remote  *stub.Process // nil as long as it is not there
	Dir     proc.Dir
	Threads []*Thread
	Batch   Batch           // for the first thread
	Running map[uint32]bool // timers of timer_create that have been started, by their numbers

	// What the process has. Each is nil where a process before it has the same and it is applied to that one.
	Space    *snapshot.Space
	Table    *snapshot.Table
	FS       *snapshot.FSContext
	Handlers *snapshot.Handlers

	// Creds are what its threads have until each gets its own.
	Creds snapshot.Credentials
}

// A Thread is a thread that is being made.
type Thread struct {
	*snapshot.Thread
	Task   *Task
	Remote *stub.Thread // nil as long as it is not there
	Batch  Batch        // for this thread; of the first it is run behind that of the process

	// What the thread has that is not its process's. Each is nil where it has none, or a process or a thread before it has the same.
	OwnTable *snapshot.Table
	OwnFS    *snapshot.FSContext
}

// Meet has the threads of the process know those that are there.
func (t *Task) Meet() {
	there := make(map[int]*stub.Thread, len(t.Remote.Threads))
	for _, th := range t.Remote.Threads {
		there[th.TID] = th
	}
	for _, th := range t.Threads {
		th.Remote = there[th.TID.Num()]
	}
}

// Where names the process in errors.
func (t *Task) Where() string { return "process " + strconv.Itoa(t.PID.Num()) }

// Path returns the path of a file in the process's directory of /proc.
func (t *Task) Path(name string) string {
	return path.Join("/proc", strconv.Itoa(t.PID.Num()), name)
}

// Where names the thread in errors.
func (th *Thread) Where() string {
	if th.TID.Num() == th.Task.PID.Num() {
		return th.Task.Where()
	}
	return th.Task.Where() + ": thread " + strconv.Itoa(th.TID.Num())
}

// Leader reports whether the thread is the first of its process.
func (th *Thread) Leader() bool { return th == th.Task.Threads[0] }

// WriteProc writes a file in the process's directory of /proc.
func (t *Task) WriteProc(name, text string) error {
	if err := os.WriteFile(t.Path(name), []byte(text), 0); err != nil {
		return fmt.Errorf("%s: %w", t.Where(), err)
	}
	return nil
}

// Run runs the batches of the process and of its threads, and empties them.
func (t *Task) Run() error {
	if err := t.Batch.Run(t.Remote, t.Remote.Threads[0]); err != nil {
		return fmt.Errorf("%s: %w", t.Where(), err)
	}
	for _, th := range t.Threads {
		if th.Remote == nil {
			continue
		}
		if err := th.Batch.Run(t.Remote, th.Remote); err != nil {
			return fmt.Errorf("%s: %w", th.Where(), err)
		}
	}
	return nil
}

// Last reports whether the thread is the last of its process that has not ended. What is of the whole process, and has to wait
// until other threads have come to a point, is left to it.
func (th *Thread) Last() bool {
	all := th.Task.Threads
	for i := len(all) - 1; i >= 0; i-- {
		if !all[i].Exited {
			return all[i] == th
		}
	}
	return false
}
