//go:build amd64

package regfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Open opens one file as Names does.
func Open(files *apply.Files, o *snapshot.Regular, flags uint32) (*apply.File, error) {
	var n Names
	defer n.Close()
	return n.Open(files, o, flags)
}

// Open opens a file by its name below the root of the restore, with flags as open(2) takes them, and at its offset. It has to be
// what it was when it was dumped. It is looked at before it is opened: opening a device or a fifo can do something.
func (n *Names) Open(files *apply.Files, o *snapshot.Regular, flags uint32) (*apply.File, error) {
	f, err := n.open(files, o, flags)
	if err != nil {
		return nil, Explain(o.Path.Name, err)
	}
	if flags&unix.O_PATH == 0 {
		if err := seek(f, o); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("%s: %w", o.Path.Name, err)
		}
	}
	return f, nil
}

// Explain says of a file that could not be opened what that means for a restore.
func Explain(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is gone: put it back, or hand in another file by inherit-fd: %w", name, err)
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s leads through links that a restore does not follow: %w", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// Passed are flags that go to open(2) as they are. Those that are set afterwards are left out, and so are those that make or empty
// a file, which package images has refused.
const passed = ^uint32(unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC | unix.O_TMPFILE&^unix.O_DIRECTORY | unix.O_ASYNC | unix.O_CLOEXEC | unix.O_NOCTTY)

func (n *Names) open(files *apply.Files, o *snapshot.Regular, flags uint32) (*apply.File, error) {
	if err := n.look(files.Root, o.Path.Name, flags); err != nil {
		return nil, err
	}
	if err := check(files, o, &n.st, flags); err != nil {
		return nil, err
	}
	how := uint64(flags & passed)
	if flags&unix.O_PATH == 0 {
		how |= unix.O_NONBLOCK | unix.O_NOCTTY
		if n.st.Mode&unix.S_IFMT == unix.S_IFIFO {
			how &^= unix.O_DIRECT // packet mode, which is only for fcntl to set
		}
	}
	fd, err := n.again(files.Root, how)
	if err != nil {
		return nil, err
	}
	if flags&unix.O_PATH == 0 {
		err = apply.ChangeFlags(fd, uint32(how), flags)
	}
	if err == nil && files.CheckBuildID && o.BuildID != nil {
		err = checkBuildID(fd, o.BuildID)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return apply.NewFile(fd), nil
}

// openat2 opens a name as if root were the root directory, whatever links there are on the way.
func openat2(root *os.File, name string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for {
		fd, err := unix.Openat2(int(root.Fd()), name, how)
		// A name that changes meanwhile, anywhere on the machine, makes the kernel say "again".
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

const permissions = 0o777

// check compares a file with the one that was dumped.
func check(files *apply.Files, o *snapshot.Regular, st *unix.Stat_t, flags uint32) error {
	kind := st.Mode & unix.S_IFMT
	if o.Mode != nil {
		was, is := *o.Mode, st.Mode
		if was&unix.S_IFMT != kind {
			return fmt.Errorf("it was a %s, and is a %s", kindName(was), kindName(is))
		}
		if files.SkipMode {
			was, is = was&^permissions, is&^permissions
		}
		if was != is {
			return fmt.Errorf("its mode was %#o, and is %#o (skip-file-rwx-check leaves out the comparison of permissions)", *o.Mode&^unix.S_IFMT, st.Mode&^unix.S_IFMT)
		}
	}
	if o.Size != nil && kind == unix.S_IFREG && files.CheckSize && uint64(st.Size) != *o.Size {
		return fmt.Errorf("its size was %d, and is %d", *o.Size, st.Size)
	}
	if flags&unix.O_PATH != 0 {
		return nil
	}
	switch kind {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO:
		return nil
	case unix.S_IFCHR:
		if plainDevice(st.Rdev) {
			return nil
		}
		return fmt.Errorf("it is the device %d:%d, which is not one that can be restored", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return fmt.Errorf("it is a %s, which cannot be opened", kindName(st.Mode))
}

func checkBuildID(fd int, was []byte) error {
	// The file may be open for writing only.
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open it to look at its build-id: %w", err)
	}
	f := os.NewFile(uintptr(again), "")
	defer f.Close()
	is, err := readBuildID(f)
	if err != nil {
		return fmt.Errorf("its build-id: %w", err)
	}
	if !bytes.Equal(is, was) {
		return fmt.Errorf("its build-id was %x, and is %x: it is another build of the program", was, is)
	}
	return nil
}

// seek moves an opened file to its offset. What was just opened is at 0.
func seek(f *apply.File, o *snapshot.Regular) error {
	if o.Pos == noPos || o.Pos == 0 {
		return nil
	}
	if o.Mode != nil && *o.Mode&unix.S_IFMT == unix.S_IFIFO {
		return nil
	}
	if _, err := unix.Seek(int(f.Fd()), int64(o.Pos), unix.SEEK_SET); err != nil {
		return fmt.Errorf("seek to %d: %w", o.Pos, err)
	}
	return nil
}
