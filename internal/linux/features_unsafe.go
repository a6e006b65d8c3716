package linux

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These probes find out what a kernel has without changing anything, and without rights.

// HasPidfdOpen tells whether the kernel has pidfd_open (Linux 5.3).
func (k *Kernel) HasPidfdOpen() (Answer, error) {
	return k.probe("pidfd_open", func() error {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}, unix.ENOSYS)
}

// HasSetTID tells whether clone3 lets the caller choose pids (Linux 5.5). It asks for more pids than there can be, which a
// kernel that knows the field refuses before it looks at anything else.
func (k *Kernel) HasSetTID() (Answer, error) {
	return k.probe("clone3(set_tid)", func() error {
		pid := int32(0)
		args := struct { // struct clone_args up to set_tid_size
			flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
			setTID                                                               *int32
			setTIDSize                                                           uint64
		}{exitSignal: uint64(unix.SIGCHLD), setTID: &pid, setTIDSize: 1 << 20}
		_, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
		if errno == unix.EINVAL {
			return nil
		}
		return errno
	}, unix.ENOSYS, unix.E2BIG)
}

// HasKcmp tells whether the kernel has kcmp.
func (k *Kernel) HasKcmp() (Answer, error) {
	return k.probe("kcmp", func() error {
		_, err := k.Same(os.Getpid(), os.Getpid(), SameVM, 0, 0)
		return err
	}, unix.ENOSYS)
}

// HasKcmpEpoll tells whether kcmp tells what an epoll file watches (Linux 4.13).
func (k *Kernel) HasKcmpEpoll() (Answer, error) {
	return k.probe("kcmp(KCMP_EPOLL_TFD)", func() error {
		epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(epoll)
		_, err = k.SameTarget(os.Getpid(), epoll, epoll, epoll, 0) // it watches nothing
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}, unix.EINVAL, unix.ENOSYS)
}

// HasMemoryMap tells whether prctl takes and gives the layout of a process's memory (PR_SET_MM_MAP, Linux 3.18), which only
// kernels that were built for checkpoints do.
func (k *Kernel) HasMemoryMap() (Answer, error) {
	return k.probe("prctl(PR_SET_MM_MAP)", func() error {
		var size uint32
		_, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, uintptr(unsafe.Pointer(&size)), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}, unix.EINVAL)
}

// HasTimerIDs tells whether prctl lets a process choose the numbers of its timers (PR_TIMER_CREATE_RESTORE_IDS, Linux 6.16).
func (k *Kernel) HasTimerIDs() (Answer, error) {
	return k.probe("prctl(PR_TIMER_CREATE_RESTORE_IDS)", func() error {
		const option, get = 77, 2
		_, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, option, get, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}, unix.EINVAL)
}

// HasGuardScan tells whether PAGEMAP_SCAN tells guard pages (Linux 6.15).
func (k *Kernel) HasGuardScan() (Answer, error) {
	return k.probe("PAGEMAP_SCAN(PAGE_IS_GUARD)", func() error {
		f, err := os.Open("/proc/self/pagemap")
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = k.PagemapScan(int(f.Fd()), &PagemapScan{Start: 0, End: 0x1000, CategoryMask: PageGuard, ReturnMask: PageGuard})
		return err
	}, unix.ENOTTY, unix.EINVAL)
}
