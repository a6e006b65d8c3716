package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// ParentLink is the name of the symbolic link to the directory of the dump before.
const ParentLink = "parent"

// A Dir is an image directory that is open. Names are those of files in it, never paths: nothing outside the directory
// can be named. A Dir may be used by several goroutines at a time. One that is a view of another can say so by a method Unwrap() Dir:
// readers and writers of the same directory use the same buffers.
type Dir interface {
	// Open opens a file for reading. The error wraps fs.ErrNotExist where there is none.
	Open(name string) (File, error)

	// Create makes a new file, readable by its owner only, since memory holds secrets. A file that is there is replaced,
	// not written into: a link that somebody put in the way is never followed.
	Create(name string) (NewFile, error)

	// Remove removes a file. The error wraps fs.ErrNotExist where there is none.
	Remove(name string) error

	// Names returns the names of all files, sorted.
	Names() ([]string, error)

	// Parent opens the directory of the dump before. The error wraps fs.ErrNotExist where there is none.
	Parent() (Dir, error)

	// SetParent makes the link to the directory of the dump before; target is relative to this directory, "../1" for one.
	SetParent(target string) error

	// Close releases the directory. Files that are open stay so.
	Close() error
}

// A File is an image that is open for reading. Files of directories on disk are [*os.File]; see [FD].
type File interface {
	io.Reader
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

// A NewFile is an image that is being written. Files of directories on disk are [*os.File]; see [FD].
type NewFile interface {
	io.Writer
	io.WriterAt
	io.Closer
}

// FD returns the descriptor of a File, a NewFile or anything else that has one: the way to let the kernel, or the dumped
// process itself, read and write it. It is valid until the file is closed.
func FD(file any) (fd uintptr, ok bool) {
	f, ok := file.(interface{ Fd() uintptr })
	if !ok {
		return 0, false
	}
	fd = f.Fd()
	return fd, fd != ^uintptr(0)
}

// ErrReadOnly is the cause of an error of a Dir that cannot be written.
var ErrReadOnly = errors.New("image directory is read-only")

func checkName(op, name string) error {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "/\\\x00") {
		return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("%w: not a name of a file in an image directory", fs.ErrInvalid)}
	}
	return nil
}
