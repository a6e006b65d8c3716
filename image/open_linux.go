package image

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// A tree of processes has thousands of images. What is here does what package os does with less garbage and fewer system calls: that asks of
// each file whether it can be polled.

// openIn opens a file of a directory, also where the name is a link to another in it.
func (d *osDir) openIn(name string, flags int) (*os.File, error) {
	if d.here == nil {
		return d.root.OpenFile(name, flags, fileMode)
	}
	for {
		fd, err := syscall.Openat(int(d.here.Fd()), name, flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, fileMode)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), d.root.Name()+"/"+name), nil
		case errors.Is(err, syscall.ELOOP):
			return d.root.OpenFile(name, flags, fileMode)
		case !errors.Is(err, syscall.EINTR):
			return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
		}
	}
}

// regular reports whether f is certainly a regular file.
func regular(f *os.File) bool {
	var st syscall.Stat_t
	return syscall.Fstat(int(f.Fd()), &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG
}

// sizeOf returns the length of a file.
func sizeOf(f File) (int64, error) {
	var st syscall.Stat_t
	if f, ok := f.(*os.File); ok && syscall.Fstat(int(f.Fd()), &st) == nil {
		return st.Size, nil
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
