package linux

import (
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
	pidfd, err := unix.PidfdOpen(pid, 0)
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

// RobustList returns the head of a task's list of robust futexes, and the length that was registered with it.
func (k *Kernel) RobustList(tid int) (head, length uint64, err error) {
	if err := k.step("get_robust_list"); err != nil {
		return 0, 0, err
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(tid), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&length)))
	return head, length, fail("get_robust_list", tid, errno)
}
