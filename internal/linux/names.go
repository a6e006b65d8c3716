package linux

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// MakeFile makes an empty regular file under a name that nobody has, and opens it to be read and written.
func (k *Kernel) MakeFile(dir int, name string, mode uint32) (fd int, err error) {
	return k.openat("openat(O_CREAT)", dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
}

// MakeDirectory makes a directory under a name that nobody has.
func (k *Kernel) MakeDirectory(dir int, name string, mode uint32) error {
	return k.named("mkdirat", name, func() error { return unix.Mkdirat(dir, name, mode) })
}

// MakeFIFO makes a fifo under a name that nobody has.
func (k *Kernel) MakeFIFO(dir int, name string, mode uint32) error {
	return k.named("mknodat", name, func() error { return unix.Mknodat(dir, name, unix.S_IFIFO|mode, 0) })
}

// MakeSymlink makes a symbolic link under a name that nobody has.
func (k *Kernel) MakeSymlink(target string, dir int, name string) error {
	return k.named("symlinkat", name, func() error { return unix.Symlinkat(target, dir, name) })
}

// OpenPath opens what a name is of, whatever that is, as a name.
func (k *Kernel) OpenPath(dir int, name string) (fd int, err error) {
	return k.openat("openat(O_PATH)", dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// Link gives a file, that a link in /proc leads to, one more name.
func (k *Kernel) Link(file string, dir int, name string) error {
	return k.named("linkat", name, func() error { return unix.Linkat(unix.AT_FDCWD, file, dir, name, unix.AT_SYMLINK_FOLLOW) })
}

// Unlink takes a name away: that of a directory with unix.AT_REMOVEDIR.
func (k *Kernel) Unlink(dir int, name string, flags int) error {
	return k.named("unlinkat", name, func() error { return unix.Unlinkat(dir, name, flags) })
}

// Chown gives an open file an owner, one that was opened as a name too.
func (k *Kernel) Chown(fd int, uid, gid uint32) error {
	return k.named("fchownat", "", func() error { return unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH) })
}

// EnterTimeNamespace gives the children of the calling thread a time namespace of their own, whose clocks are so far from those of the
// machine. It needs CAP_SYS_ADMIN and CAP_SYS_TIME, and Linux 5.6.
func (k *Kernel) EnterTimeNamespace(monotonic, boottime unix.Timespec) error {
	return k.named("unshare", "a time namespace", func() error {
		if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
			return err
		}
		// The thread is found by its number, too; /proc/thread-self has no such file.
		f, err := unix.Open(fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid()), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(f)
		_, err = unix.Write(f, fmt.Appendf(nil, "monotonic %d %d\nboottime %d %d\n", monotonic.Sec, monotonic.Nsec, boottime.Sec, boottime.Nsec))
		return err
	})
}

func (k *Kernel) openat(call string, dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = k.named(call, name, func() (err error) {
		fd, err = unix.Openat(dir, name, flags, mode)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

func (k *Kernel) named(call, name string, do func() error) error {
	if err := k.step(call); err != nil {
		return err
	}
	err := do()
	for errors.Is(err, unix.EINTR) {
		err = do()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return &CallError{Call: call, Target: name, Errno: errno}
	}
	return err
}
