package linux

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Same can compare, from include/uapi/linux/kcmp.h.
const (
	SameFile   = 0 // the open file descriptions behind two descriptors
	SameVM     = 1
	SameFiles  = 2 // the tables of descriptors
	SameFS     = 3
	SameSignal = 4 // the tables of signal handlers
)

// Same tells whether two tasks share a kernel object. For SameFile, a and b are descriptors; else they are not used.
func (k *Kernel) Same(pid1, pid2, what, a, b int) (bool, error) {
	if err := k.step("kcmp"); err != nil {
		return false, err
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), uintptr(what), uintptr(a), uintptr(b), 0)
	return n == 0, fail("kcmp", pid1, errno)
}

// TakeFile duplicates a descriptor of another process into this one, close-on-exec (Linux 5.6).
func (k *Kernel) TakeFile(pid, fd int) (int, error) {
	if err := k.step("pidfd_getfd"); err != nil {
		return -1, err
	}
	pidfd, err := OpenTask(pid)
	if err != nil {
		return -1, &CallError{Call: "pidfd_open", Target: "", Errno: errnoOf(err)}
	}
	defer unix.Close(pidfd)
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fail("pidfd_getfd", pid, errnoOf(err))
	}
	return n, nil
}

// OpenTask opens a pidfd of a process, or, since Linux 6.9, of a thread that is not its first.
func OpenTask(tid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		const pidfdThread = unix.O_EXCL // PIDFD_THREAD
		fd, err = unix.PidfdOpen(tid, pidfdThread)
	}
	return fd, err
}

func errnoOf(err error) syscall.Errno {
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return unix.EINVAL
}

// Pause lets the calling thread sleep for some nanoseconds, or with 0 give way to others that are ready to run.
func (k *Kernel) Pause(nanoseconds int64) {
	if nanoseconds == 0 {
		_, _, _ = syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		return
	}
	ts := unix.NsecToTimespec(nanoseconds)
	_, _, _ = syscall.Syscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
