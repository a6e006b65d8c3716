//go:build amd64

package stub

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
)

// Layout is what the program and all that comes of it have in common.
type Layout struct {
	// Area is where our mapping lies, AreaSize bytes. No process of the tree has anything there.
	Area snapshot.Range
	// Files are descriptors that the processes inherit, at numbers that begin with FirstFile. No descriptor of the tree has one of
	// these numbers.
	Files     []int
	FirstFile int

	room []byte // for tables on their way to a process and back
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
	p, err := take(t, l, pid)
	if err != nil {
		return nil, err
	}
	// What this program has of others, and was not told to close by exec, is nobody's business.
	end := uint64(l.FirstFile + len(l.Files))
	calls := []Call{NewCall(unix.SYS_CLOSE_RANGE, 0, uint64(l.FirstFile)-1, 0), NewCall(unix.SYS_CLOSE_RANGE, end, math.MaxUint32, 0)}
	if l.FirstFile == 0 {
		calls = calls[1:]
	}
	if err := errors.Join(p.Run(calls), remote.Must(calls)); err != nil {
		return nil, errors.Join(err, p.Destroy())
	}
	return p, nil
}

// StartSibling starts the program as a child of our parent, under a number of its own. It is the root itself and not what the root
// is copied from: only we can make a child of our parent's, and what ends there is our parent's to wait for.
func StartSibling(t *ptrace.Tracer, l *Layout, pid int) (*Process, error) {
	// package linux moves files beyond those numbers meanwhile.
	program, err := memoryProgram(l, l.FirstFile+2*len(l.Files)+8)
	if err != nil {
		return nil, err
	}
	defer unix.Close(program)
	const grace = time.Minute
	s := &linux.Sibling{PID: pid, Program: program, Name: programName, Files: l.Files, FirstFile: l.FirstFile, Grace: grace}
	made, err := linux.StartSibling(s)
	for deadline := time.Now().Add(idPatience); errors.Is(err, unix.EEXIST) && !idInUse(t.Proc().Process(pid)) && time.Now().Before(deadline); {
		t.Kernel().Pause(int64(time.Millisecond)) // as in clone
		made, err = linux.StartSibling(s)
	}
	if err != nil {
		return nil, cloneError(pid, err)
	}
	p, err := take(t, l, made)
	if err != nil {
		return nil, err
	}
	// Now it ends with us, and not by its timer.
	calls := []Call{NewCall(unix.SYS_SETITIMER, unix.ITIMER_REAL, 0, 0)}
	if err := errors.Join(p.Run(calls), remote.Must(calls)); err != nil {
		return nil, errors.Join(err, p.Destroy())
	}
	return p, nil
}

// take takes hold of the program when it has been started.
func take(t *ptrace.Tracer, l *Layout, pid int) (*Process, error) {
	p := &Process{PID: pid, tracer: t, layout: l}
	th, err := t.Seize(pid)
	if err == nil {
		p.Threads = []*Thread{{Thread: th, p: p}}
		err = p.settle()
	} else {
		err = errors.Join(err, unix.Kill(pid, unix.SIGKILL))
		_, _ = unix.Wait4(pid, nil, unix.WALL, nil) // if it is ours to wait for
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

// programName is what the program is called.
const programName = "stasis"

// memoryProgram puts the program into anonymous memory: what comes of it must have no trace of a file. Its number is not below the
// one given: out of the way of those that the child gives its files.
func memoryProgram(l *Layout, lowest int) (int, error) {
	fd, err := unix.MemfdCreate("stasis", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("memfd_create: %w", err)
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowest)
	_ = unix.Close(fd)
	if err != nil {
		return 0, fmt.Errorf("descriptor %d (RLIMIT_NOFILE): %w", lowest, err)
	}
	text := program(l.Area.Start, l.Area.Len())
	if n, err := unix.Write(high, text); err != nil || n != len(text) {
		_ = unix.Close(high)
		return 0, fmt.Errorf("write the program: %w", err)
	}
	return high, nil
}

// spawn starts the program.
func spawn(l *Layout) (int, error) {
	files := make([]uintptr, l.FirstFile+len(l.Files))
	for i := range files {
		files[i] = ^uintptr(0)
	}
	last := len(files)
	var moved []int
	defer func() { linux.CloseAll(moved) }()
	for i, fd := range l.Files {
		at := l.FirstFile + i
		if fd < at {
			// Else package syscall would move it behind all others in the child, where there may be no numbers left.
			var err error
			if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, at); err != nil {
				return 0, fmt.Errorf("descriptor %d (RLIMIT_NOFILE): %w", at, err)
			}
			moved = append(moved, fd)
		}
		files[at], last = uintptr(fd), max(last, fd)
	}
	const spare = 8 // of which package syscall uses some
	high, err := memoryProgram(l, last+spare)
	if err != nil {
		return 0, err
	}
	defer unix.Close(high)
	attr := &syscall.ProcAttr{Env: []string{}, Files: files, Sys: &syscall.SysProcAttr{
		// Until it is traced, it dies with the thread that starts it, which is the tracer.
		Pdeathsig: unix.SIGKILL,
	}}
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", high), []string{programName}, attr)
	if err != nil {
		return 0, err
	}
	return pid, nil
}
