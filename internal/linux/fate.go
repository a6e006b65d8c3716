package linux

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Fate is what processes share with a thread: when the thread ends, however it does, the kernel kills them all, before it lets go
// of what the thread traces. Release ends that for all of them at once. So there is a moment up to which the death of the thread is
// the death of all, and from which on it is nobody's.
//
// It is a pipe with one writing end and a reading end for each process. The kernel tells the owner of a reading end, by a signal of
// one's choice, when there are no writers any more: see fcntl(2), O_ASYNC, F_SETOWN, F_SETSIG. The owner is the process, the signal
// SIGKILL. All ends are in the thread's own table of descriptors, and what makes it work is the order in which a thread ends
// (kernel/exit.c, do_exit): first its table is closed, the highest number of it first (task_work_run takes last what was added
// first), which is the writing end; then tracees are let go. Release closes the reading ends by one system call, and a thread that
// is killed in a system call ends when that is over.
type Fate struct {
	kernel      *Kernel
	first, next int // the numbers of the reading ends, and behind them that of the writing end
}

// ShareFate has processes share the fate of the calling thread. The thread has a table of descriptors of its own from then on, a copy
// of what it had, and must be one that ends with its goroutine.
//
// A process gets the signal as it would get one from the caller by its user ids alone, no matter what capabilities the caller has:
// see fs/fcntl.c, sigio_perm. That is for whoever calls to look at, as are rules of a security module: the kernel says nothing of either
// before it is too late. The error is EMFILE where there are not numbers enough. With an error nobody shares anything.
//
// Whoever looks at the thread's descriptors in /proc in the very moment of its death may hold the writing end for some nanoseconds more,
// and the reading ends may then be gone first. Nothing can be done about that but to have them few and their time short.
func (k *Kernel) ShareFate(pids []int) (*Fate, error) {
	if err := k.named("unshare(CLONE_FILES)", "", func() error { return unix.Unshare(unix.CLONE_FILES) }); err != nil {
		return nil, err
	}
	var ends [2]int
	if err := k.named("pipe2", "", func() error { return unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK) }); err != nil {
		return nil, err
	}
	f := &Fate{kernel: k}
	err := f.bindAll(pids, ends)
	if err != nil && f.next > f.first {
		err = errors.Join(err, unix.CloseRange(uint(f.first), uint(f.next-1), 0))
	}
	_, _ = unix.Close(ends[0]), unix.Close(ends[1])
	if err != nil {
		return nil, fmt.Errorf("bind processes to a thread: %w", err)
	}
	return f, nil
}

// bindAll makes the ends that stay.
func (f *Fate) bindAll(pids []int, ends [2]int) (err error) {
	if f.first, err = freeNumbers(); err != nil {
		return err
	}
	f.next = f.first
	for _, pid := range pids {
		if err := f.bind(pid, ends[0]); err != nil {
			return err
		}
	}
	return f.moveUp(ends[1], f.next)
}

// freeNumbers returns the lowest number above all descriptors of the calling thread.
func freeNumbers() (int, error) {
	names, err := ReadProcDir("/proc/thread-self/fd")
	if err != nil {
		return 0, err
	}
	free := 0
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			free = max(free, n+1)
		}
	}
	return free, nil
}

// bind opens a pipe for reading once more, and has a process killed when it has no writers any more.
func (f *Fate) bind(pid, pipe int) error {
	fd, err := f.kernel.openat("openat", unix.AT_FDCWD, "/proc/thread-self/fd/"+strconv.Itoa(pipe), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = f.moveUp(fd, f.next)
	_ = unix.Close(fd)
	if err != nil {
		return err
	}
	fd = f.next
	f.next++
	for _, set := range []struct {
		name     string
		cmd, arg int
	}{
		{"fcntl(F_SETSIG)", unix.F_SETSIG, int(unix.SIGKILL)},
		{"fcntl(F_SETOWN)", unix.F_SETOWN, pid},
		{"fcntl(F_SETFL)", unix.F_SETFL, unix.O_NONBLOCK | unix.O_ASYNC},
	} {
		err := f.kernel.named(set.name, "process "+strconv.Itoa(pid), func() error {
			_, err := unix.FcntlInt(uintptr(fd), set.cmd, set.arg)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// moveUp gives a file one more number, above all others.
func (f *Fate) moveUp(fd, to int) error {
	return f.kernel.named("fcntl(F_DUPFD_CLOEXEC)", "descriptor "+strconv.Itoa(to), func() error {
		got, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, to)
		switch {
		case errors.Is(err, unix.EINVAL):
			return unix.EMFILE // no number as high as that may be
		case err == nil && got != to:
			_ = unix.Close(got)
			return fmt.Errorf("descriptor %d is in use in a table of one thread", to)
		}
		return err
	})
}

// Release lets the processes live on when the thread ends. The caller is that thread.
func (f *Fate) Release() error {
	if f.next == f.first {
		return nil
	}
	return f.kernel.named("close_range", "", func() error { return unix.CloseRange(uint(f.first), uint(f.next-1), 0) })
}
