package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// take gets a descriptor of the client's by its number there. It is the very file that the client has open, with the
// client's mode of access; and the process is the one that connected, whatever has its pid now.
func (c *client) take(number int32, what string, r rules) (*os.File, error) {
	if !r.takeFiles {
		return os.OpenFile(procPath(c.PID, fmt.Sprintf("fd/%d", number)), os.O_RDONLY, 0)
	}
	if number < 0 {
		return nil, refusal(syscall.EBADF, "%s: %d is no descriptor", what, number)
	}
	fd, err := unix.PidfdGetfd(int(c.PIDFD.Fd()), int(number), 0)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), fmt.Sprintf("%s (descriptor %d of pid %d)", what, number, c.PID)), nil
	case errors.Is(err, unix.EBADF):
		return nil, refusal(syscall.EBADF, "%s: the client has no descriptor %d", what, number)
	case errors.Is(err, unix.ESRCH):
		return nil, refusal(syscall.ESRCH, "%s: the process that connected, pid %d, is gone", what, c.PID)
	case errors.Is(err, unix.EPERM) && c.trust == direct:
		return c.reopen(number, what)
	case errors.Is(err, unix.EPERM):
		return nil, refusal(syscall.EPERM, "%s: the kernel does not let uid %d take descriptors of pid %d: that process is not dumpable, "+
			"has capabilities, or is kept apart by a security module (see kernel.yama.ptrace_scope)", what, os.Geteuid(), c.PID)
	}
	return nil, refusal(errnoOf(err), "%s: cannot take descriptor %d of pid %d: %w", what, number, c.PID, err)
}

// reopen opens a directory of a direct client's, which Yama keeps even its own child from taking. The child has the
// client's rights, so it cannot open more than the client could.
func (c *client) reopen(number int32, what string) (*os.File, error) {
	path := procPath(c.PID, fmt.Sprintf("fd/%d", number))
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, refusal(errnoOf(err), "%s: %w", what, &os.PathError{Op: "open", Path: path, Err: err})
	}
	f := os.NewFile(uintptr(fd), path)
	if err := c.alive(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// takeDir is take for what has to be a directory.
func (c *client) takeDir(number int32, what string, r rules) (*os.File, error) {
	f, err := c.take(number, what, r)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() {
		err = refusal(syscall.ENOTDIR, "%s: descriptor %d of the client's is not a directory", what, number)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openDir opens a directory by its path, as it is to the client: below its root directory, or from its working directory.
func (c *client) openDir(path, what string) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, refusal(errnoOf(err), "%s %q of pid %d: %w", what, path, c.PID, err)
	}
	from := "cwd"
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC}
	if filepath.IsAbs(path) {
		from, how.Resolve = "root", unix.RESOLVE_IN_ROOT
	} else if same, err := sameFile(procPath(c.PID, "root"), "/"); err != nil {
		return fail(err)
	} else if !same {
		// Nothing would keep it from leading out of the client's root directory.
		return nil, refusal(syscall.EPERM, "%s %q is relative, and pid %d has another root directory: a whole path is needed, or images_dir_fd", what, path, c.PID)
	}
	base, err := unix.Open(procPath(c.PID, from), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(base)
	fd, err := unix.Openat2(base, path, &how)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := c.alive(); err != nil { // else it may be another's directory
		f.Close()
		return nil, err
	}
	return f, nil
}

// takeFiles replaces the client's descriptors in a request by this process's own, which the peer then finds below
// /proc/PID/fd as it would have found the client's.
func (c *client) takeFiles(o *rpc.Opts, r rules) (taken []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(taken)
			taken = nil
		}
	}()
	number := func(f *os.File) int32 {
		taken = append(taken, f)
		return int32(f.Fd())
	}
	if o.ImagesDir != nil && *o.ImagesDir == "" {
		o.ImagesDir = nil // as if it were not set
	}
	if o.ImagesDirFD != -1 {
		f, err := c.takeDir(o.ImagesDirFD, "images_dir_fd", r)
		if err != nil {
			return taken, err
		}
		o.ImagesDirFD = number(f)
	} else if o.ImagesDir != nil && c.trust == trusted {
		// Others that may set it have started this process, in their own directory.
		f, err := c.openDir(*o.ImagesDir, "images_dir")
		if err != nil {
			return taken, err
		}
		o.ImagesDirFD, o.ImagesDir = number(f), nil
	}
	if o.WorkDirFD != nil && *o.WorkDirFD < 0 {
		o.WorkDirFD = nil // as if it were not set
	}
	if o.WorkDirFD != nil {
		f, err := c.takeDir(*o.WorkDirFD, "work_dir_fd", r)
		if err != nil {
			return taken, err
		}
		o.WorkDirFD = new(number(f))
	}
	if o.StatusFD != nil {
		f, err := c.take(*o.StatusFD, "status_fd", r)
		if err != nil {
			return taken, err
		}
		o.StatusFD = new(number(f))
	}
	if o.PidfdStoreSk != nil {
		f, err := c.take(*o.PidfdStoreSk, "pidfd_store_sk", r)
		if err != nil {
			return taken, err
		}
		o.PidfdStoreSk = new(number(f))
	}
	return taken, nil
}

// inherited collects the files that a direct client has passed to this process by inheritance, and that the peer is to
// inherit in turn. renumber writes the peer's numbers into the request, once they are known.
func inherited(o *rpc.Opts) (files []*os.File, renumber func(number func(i int) int), err error) {
	var slots []*int32
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	add := func(slot *int32, what string) error {
		fd := int(*slot)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 { // what this process has opened for itself
			return refusal(syscall.EBADF, "%s: descriptor %d was not inherited", what, fd)
		}
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return os.NewSyscallError("dup", err)
		}
		files = append(files, os.NewFile(uintptr(own), what))
		slots = append(slots, slot)
		return nil
	}
	for _, f := range o.InheritFD {
		if err := add(&f.FD, "inherit_fd "+f.Key); err != nil {
			return files, nil, err
		}
	}
	if o.PS != nil && o.PS.FD != nil {
		if err := add(o.PS.FD, "ps.fd"); err != nil {
			return files, nil, err
		}
	}
	return files, func(number func(i int) int) {
		for i, slot := range slots {
			*slot = int32(number(i))
		}
	}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func errnoOf(err error) syscall.Errno {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return 0
}
