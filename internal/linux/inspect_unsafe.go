package linux

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Order compares a kernel object of two tasks, as Same does, by an order of the kernel's own: the result is negative, zero or
// positive. So many tasks can be sorted by what they share.
func (k *Kernel) Order(pid1, pid2, what, a, b int) (int, error) {
	if err := k.step("kcmp"); err != nil {
		return 0, err
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), uintptr(what), uintptr(a), uintptr(b), 0)
	if errno != 0 {
		return 0, fail("kcmp", pid1, errno)
	}
	switch n {
	case 0:
		return 0, nil
	case 1:
		return -1, nil
	case 2:
		return 1, nil
	}
	return 0, &CallError{Call: "kcmp", Errno: unix.EOPNOTSUPP} // "unequal, but unordered", which no kernel answers
}

// RobustList returns what a task has told the kernel by set_robust_list(2).
func (k *Kernel) RobustList(tid int) (head, length uint64, err error) {
	if err := k.step("get_robust_list"); err != nil {
		return 0, 0, err
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(tid), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&length)))
	return head, length, fail("get_robust_list", tid, errno)
}

// IOPriority returns what ioprio_get(2) says of a task.
func (k *Kernel) IOPriority(tid int) (uint32, error) {
	if err := k.step("ioprio_get"); err != nil {
		return 0, err
	}
	const who = 1 // IOPRIO_WHO_PROCESS: one thread
	n, _, errno := syscall.RawSyscall(unix.SYS_IOPRIO_GET, who, uintptr(tid), 0)
	return uint32(n), fail("ioprio_get", tid, errno)
}

// Affinity returns the processors that a task may run on; bit n of word m is processor m*64+n. Words of zeros at the end are
// left out.
func (k *Kernel) Affinity(tid int) ([]uint64, error) {
	if err := k.step("sched_getaffinity"); err != nil {
		return nil, err
	}
	const most = 1024 // bytes: 8192 processors, the most that Linux can be built for
	for size := uintptr(128); ; size *= 2 {
		mask := make([]uint64, size/8)
		n, _, errno := syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), size, uintptr(unsafe.Pointer(&mask[0])))
		if errno == unix.EINVAL && size < most {
			continue // the machine has more processors
		}
		if errno != 0 {
			return nil, fail("sched_getaffinity", tid, errno)
		}
		mask = mask[:n/8]
		for len(mask) > 1 && mask[len(mask)-1] == 0 {
			mask = mask[:len(mask)-1]
		}
		return mask, nil
	}
}

// SetAffinity says on which processors a task may run; those that there are not are left out.
func (k *Kernel) SetAffinity(tid int, mask []uint64) error {
	if err := k.step("sched_setaffinity"); err != nil {
		return err
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), uintptr(len(mask)*8), uintptr(unsafe.Pointer(unsafe.SliceData(mask))))
	return fail("sched_setaffinity", tid, errno)
}

// SetIOPriority sets what ioprio_set(2) sets, of a task.
func (k *Kernel) SetIOPriority(tid int, priority uint32) error {
	if err := k.step("ioprio_set"); err != nil {
		return err
	}
	const who = 1 // IOPRIO_WHO_PROCESS: one thread
	_, _, errno := syscall.RawSyscall(unix.SYS_IOPRIO_SET, who, uintptr(tid), uintptr(priority))
	return fail("ioprio_set", tid, errno)
}

// FileOwner is who is told of input and output on a file: see fcntl(2), F_GETOWN_EX, F_GETSIG and F_GETOWNER_UIDS.
type FileOwner struct {
	Type, PID, Signal int
	UID, EUID         uint32
}

// FileOwner returns the owner of an open file.
func (k *Kernel) FileOwner(fd int) (FileOwner, error) {
	const (
		getOwner     = 16 // F_GETOWN_EX
		getOwnerUIDs = 17 // F_GETOWNER_UIDS
		getSignal    = 11 // F_GETSIG
	)
	var owner struct{ kind, pid int32 }
	if err := k.fcntl(fd, getOwner, unsafe.Pointer(&owner)); err != nil {
		return FileOwner{}, err
	}
	signal, err := unix.FcntlInt(uintptr(fd), getSignal, 0)
	if err != nil {
		return FileOwner{}, fail("fcntl(F_GETSIG)", 0, errnoOf(err))
	}
	o := FileOwner{Type: int(owner.kind), PID: int(owner.pid), Signal: signal}
	if o.PID == 0 {
		return o, nil
	}
	var ids [2]uint32
	// Only kernels with CONFIG_CHECKPOINT_RESTORE tell.
	if err := k.fcntl(fd, getOwnerUIDs, unsafe.Pointer(&ids)); err != nil && !errors.Is(err, unix.EINVAL) {
		return FileOwner{}, err
	}
	o.UID, o.EUID = ids[0], ids[1]
	return o, nil
}

func (k *Kernel) fcntl(fd, cmd int, arg unsafe.Pointer) error {
	if err := k.step("fcntl"); err != nil {
		return err
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), uintptr(cmd), uintptr(arg))
	return fail("fcntl", 0, errno)
}

// SameTarget tells whether a descriptor of a task is the file that one of its epoll files watches under the number target; nth
// counts those that it watches under the same number.
func (k *Kernel) SameTarget(pid, fd, epoll, target, nth int) (bool, error) {
	if err := k.step("kcmp"); err != nil {
		return false, err
	}
	const epollTarget = 7 // KCMP_EPOLL_TFD
	slot := struct{ epoll, target, nth uint32 }{uint32(epoll), uint32(target), uint32(nth)}
	n, _, errno := syscall.RawSyscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), epollTarget, uintptr(fd), uintptr(unsafe.Pointer(&slot)), 0)
	return n == 0 && errno == 0, fail("kcmp", pid, errno)
}
