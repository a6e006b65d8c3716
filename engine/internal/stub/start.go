//go:build amd64

package stub

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
)

// Layout is what the program and all that comes of it have in common.
type Layout struct {
	// Area is where our mapping lies, AreaSize bytes. No process of the tree has anything there.
	Area snapshot.Range
	// Files are what the processes inherit, at numbers that begin with FirstFile. No descriptor of the tree has one of
	// these numbers.
	Files     []*os.File
	FirstFile int
	// Sibling makes the root a child of our parent instead of our own.
	Sibling bool
}

// File returns the number that a file has in the processes.
func (l *Layout) File(i int) int { return l.FirstFile + i }

// The area: the program's own page, which goes first of all, since it is of a file; a page of code; a table; arguments.
const (
	pageSize   = 4096
	codeAt     = pageSize
	tableAt    = 2 * pageSize
	entrySize  = 64
	tableRoom  = 1024 // entries
	argumentAt = tableAt + tableRoom*entrySize
	// ArgumentRoom is how many bytes of arguments calls can have together.
	ArgumentRoom = 512 << 10
	// AreaSize is the size of the area in bytes.
	AreaSize = argumentAt + ArgumentRoom
)

// Start starts the program. What comes of it is traced by the tracer, which must have been made with ExitKill.
func Start(t *ptrace.Tracer, l *Layout) (*Process, error) {
	pid, err := spawn(l)
	if err != nil {
		return nil, fmt.Errorf("start a process: %w", err)
	}
	p := &Process{PID: pid, tracer: t, layout: l}
	th, err := t.Seize(pid)
	if err == nil {
		p.Threads = []*Thread{{Thread: th, p: p}}
		err = p.settle()
	} else {
		err = errors.Join(err, unix.Kill(pid, unix.SIGKILL))
		_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
		return nil, err
	}
	if err != nil {
		return nil, errors.Join(err, p.Destroy())
	}
	return p, nil
}

// settle stops the program, and puts our code in place.
func (p *Process) settle() error {
	th := p.Threads[0]
	if err := th.Interrupt(); err != nil {
		return err
	}
	if _, err := th.Settle(); err != nil {
		return err
	}
	var err error
	if p.base, err = th.Regs(); err != nil {
		return err
	}
	// All but the one by which a table ends: one that is blocked would have its handler reset (kernel/signal.c,
	// force_sig_info_to_task).
	if err := th.SetSigmask(^uint64(1 << (unix.SIGTRAP - 1))); err != nil {
		return err
	}
	return p.Write(p.layout.Area.Start+codeAt, loop)
}

// spawn starts the program from anonymous memory: what comes of it must have no trace of a file.
func spawn(l *Layout) (int, error) {
	fd, err := unix.MemfdCreate("stasis", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("memfd_create: %w", err)
	}
	// Out of the way of the numbers that the child gives its files, and of those that package syscall moves files to meanwhile,
	// which begin behind the last of them.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, l.FirstFile+2*len(l.Files)+8)
	_ = unix.Close(fd)
	if err != nil {
		return 0, fmt.Errorf("a descriptor above %d: %w", l.FirstFile+2*len(l.Files), err)
	}
	defer unix.Close(high)
	text := program(l.Area.Start, l.Area.Len())
	if n, err := unix.Write(high, text); err != nil || n != len(text) {
		return 0, fmt.Errorf("write the program: %w", err)
	}
	files := make([]uintptr, l.FirstFile+len(l.Files))
	for i := range files {
		files[i] = ^uintptr(0)
	}
	for i, f := range l.Files {
		files[l.FirstFile+i] = f.Fd()
	}
	attr := &syscall.ProcAttr{Env: []string{}, Files: files, Sys: &syscall.SysProcAttr{
		// Until it is traced, it dies with the thread that starts it, which is the tracer.
		Pdeathsig: unix.SIGKILL,
	}}
	if l.Sibling {
		attr.Sys.Cloneflags = unix.CLONE_PARENT
	}
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", high), []string{"stasis"}, attr)
	if err != nil {
		return 0, err
	}
	return pid, nil
}
