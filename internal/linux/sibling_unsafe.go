package linux

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Sibling is a program to be started as a child of this process's parent.
type Sibling struct {
	PID     int    // its number; 0 for any
	Program int    // descriptor of the program, above all others that are given
	Name    string // argv[0]
	// Files are descriptors that it gets, at numbers that begin with FirstFile. It gets no others.
	Files     []int
	FirstFile int
	// Grace is after which time the program ends by SIGALRM, unless somebody stops its timer: as long as nobody else has a
	// hold on it, it could outlive this process. All other signals are blocked.
	Grace time.Duration
}

// siblingPlan is all that the child needs, made before it exists: it has one thread and must not use Go's runtime.
type siblingPlan struct {
	clone   [11]uint64 // struct clone_args
	tid     [1]int32   // set_tid
	all     uint64     // a signal set
	alarm   uint64     // all signals but SIGALRM
	timer   [4]int64   // struct itimerval
	argv    [2]*byte
	envp    [1]*byte
	empty   [1]byte
	program uintptr
	status  uintptr // where it reports an error
	first   uintptr
	files   []int32 // descriptors, then their duplicates
	errno   [1]uint32
}

// StartSibling starts a program as a child of this process's parent, who gets its SIGCHLD and waits for it. Its error is
// EEXIST where the number is in use.
func StartSibling(s *Sibling) (pid int, err error) {
	var status [2]int
	if err := unix.Pipe2(status[:], unix.O_CLOEXEC); err != nil {
		return 0, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(status[0])
	name, err := unix.BytePtrFromString(s.Name)
	if err != nil {
		unix.Close(status[1])
		return 0, err
	}
	end := s.FirstFile + len(s.Files)
	// Like the program, out of the way of the numbers that the child gives its files.
	high, err := unix.FcntlInt(uintptr(status[1]), unix.F_DUPFD_CLOEXEC, end)
	unix.Close(status[1])
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	p := &siblingPlan{all: ^uint64(0), alarm: ^uint64(1 << (unix.SIGALRM - 1)), argv: [2]*byte{name}, program: uintptr(s.Program), status: uintptr(high), first: uintptr(s.FirstFile)}
	p.timer[2], p.timer[3] = int64(s.Grace/time.Second), int64(s.Grace%time.Second/time.Microsecond)
	for _, fd := range s.Files {
		p.files = append(p.files, int32(fd))
	}
	p.clone[0] = unix.CLONE_PARENT // and it ends with the signal that this process ends with
	p.tid[0] = int32(s.PID)
	n, errno := cloneSibling(p)
	unix.Close(high)
	if errno != 0 {
		return 0, errno
	}
	var buf [4]byte
	if got, _ := unix.Read(status[0], buf[:]); got == len(buf) {
		return 0, fmt.Errorf("a program as a child of our parent's: %w", unix.Errno(*(*uint32)(unsafe.Pointer(&buf))))
	}
	return int(n), nil
}

// cloneSibling forks. The child, a copy of this thread alone, goes on here: it may neither grow its stack nor take a signal, for
// which it needs threads that it does not have.
//
//go:noinline
//go:norace
//go:nosplit
func cloneSibling(p *siblingPlan) (pid uintptr, errno syscall.Errno) {
	var old uint64
	const setSize = 8
	if p.tid[0] != 0 {
		p.clone[8], p.clone[9] = uint64(uintptr(unsafe.Pointer(&p.tid))), 1 // the stack does not move from here on
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&p.all)), uintptr(unsafe.Pointer(&old)), setSize, 0, 0)
	pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&p.clone)), unsafe.Sizeof(p.clone), 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, setSize, 0, 0)
		return pid, errno
	}
	p.errno[0] = uint32(p.becomeProgram())
	syscall.RawSyscall(unix.SYS_WRITE, p.status, uintptr(unsafe.Pointer(&p.errno)), unsafe.Sizeof(p.errno))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// becomeProgram is what the child does. It returns an error only.
//
//go:norace
//go:nosplit
func (p *siblingPlan) becomeProgram() syscall.Errno {
	end := p.first + uintptr(len(p.files))
	// First out of the way of each other.
	for i := range p.files {
		fd, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(p.files[i]), unix.F_DUPFD_CLOEXEC, end)
		if errno != 0 {
			return errno
		}
		p.files[i] = int32(fd)
	}
	for i := range p.files {
		if _, _, errno := syscall.RawSyscall(unix.SYS_DUP3, uintptr(p.files[i]), p.first+uintptr(i), 0); errno != 0 {
			return errno
		}
	}
	if p.first > 0 {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, p.first-1, 0)
	}
	const closeOnExec = 4 // CLOSE_RANGE_CLOEXEC
	if _, _, errno := syscall.RawSyscall(unix.SYS_CLOSE_RANGE, end, 1<<31-1, closeOnExec); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETITIMER, unix.ITIMER_REAL, uintptr(unsafe.Pointer(&p.timer)), 0); errno != 0 {
		return errno
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&p.alarm)), 0, 8, 0, 0)
	_, _, errno := syscall.RawSyscall6(unix.SYS_EXECVEAT, p.program, uintptr(unsafe.Pointer(&p.empty)), uintptr(unsafe.Pointer(&p.argv)),
		uintptr(unsafe.Pointer(&p.envp)), unix.AT_EMPTY_PATH, 0)
	return errno
}
