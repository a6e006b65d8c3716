package linux

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// Proc is the root of /proc for package proc. Package os would do, but asks of each file whether it can be polled: five system
// calls where three are enough, and a dump reads some thirty files of each process.
type Proc struct{}

func (Proc) path(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return "/proc/" + name, nil
}

// Open opens a file to be read.
func (r Proc) Open(name string) (fs.File, error) {
	path, err := r.path("open", name)
	if err != nil {
		return nil, err
	}
	fd, err := openAt(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return &procFile{fd: fd, path: path}, nil
}

// ReadLink reads a symbolic link.
func (r Proc) ReadLink(name string) (string, error) {
	path, err := r.path("readlink", name)
	if err != nil {
		return "", err
	}
	return readLink(unix.AT_FDCWD, path, path)
}

// readLink reads a link by its name in an open directory. Its path is for errors.
func readLink(dir int, name, path string) (string, error) {
	var short [256]byte
	for buf := short[:]; ; buf = make([]byte, 4*len(buf)) {
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
	}
}

// Sub opens a directory: what is in it is found sooner then, one name and not a whole path. What it returns is an io.Closer. It is for
// directories whose files the kernel makes as a whole, so that a read which returns less than it could is the last; those of fdinfo
// are.
func (r Proc) Sub(name string) (fs.FS, error) {
	path, err := r.path("open", name)
	if err != nil {
		return nil, err
	}
	fd, err := openAt(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &procDir{fd, path}, nil
}

// procDir is an open directory of /proc.
type procDir struct {
	fd   int
	path string
}

// name returns the path of a file, for errors.
func (d *procDir) name(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return d.path + "/" + name, nil
}

func (d *procDir) Open(name string) (fs.File, error) {
	path, err := d.name("open", name)
	if err != nil {
		return nil, err
	}
	for {
		fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return &procFile{fd: fd, path: path, whole: true}, nil
	}
}

func (d *procDir) ReadLink(name string) (string, error) {
	path, err := d.name("readlink", name)
	if err != nil {
		return "", err
	}
	return readLink(d.fd, name, path)
}

func (d *procDir) Lstat(name string) (fs.FileInfo, error) { return Proc{}.Lstat(name) }

func (d *procDir) Close() error { return unix.Close(d.fd) }

// Ours is an error where /proc is not that of this process's pid namespace: each number there would be another process's.
func (r Proc) Ours() error {
	// The link leads nowhere where this process has no number.
	self, err := r.ReadLink("self")
	if err == nil && self == strconv.Itoa(unix.Getpid()) {
		return nil
	}
	const text = "/proc is not that of the pid namespace of this process, which looks for itself there (mount -t proc proc /proc)"
	if err != nil {
		return fmt.Errorf(text+": %w", err)
	}
	return errors.New(text)
}

// Lstat is not there: nothing in /proc is asked for by what it is.
func (r Proc) Lstat(name string) (fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "lstat", Path: name, Err: errors.ErrUnsupported}
}

// ReadDir reads a directory, in the kernel's order. The entries have names and nothing else.
func (r Proc) ReadDir(name string) ([]fs.DirEntry, error) {
	path, err := r.path("open", name)
	if err != nil {
		return nil, err
	}
	names, err := ReadProcDir(path)
	entries := make([]fs.DirEntry, len(names))
	for i, n := range names {
		entries[i] = procEntry(n)
	}
	return entries, err
}

// ReadProcDir reads the names in a directory, in the kernel's order.
func ReadProcDir(path string) ([]string, error) {
	fd, err := openAt(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	var buf [4 << 10]byte
	for {
		n, err := unix.ReadDirent(fd, buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return names, &fs.PathError{Op: "readdir", Path: path, Err: err}
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// ReadProc reads a file of /proc, named by its whole path.
func ReadProc(path string) ([]byte, error) {
	fd, err := openAt(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	f := procFile{fd: fd, path: path}
	defer f.Close()
	b := make([]byte, 0, 1024)
	for {
		if len(b) == cap(b) {
			b = append(b, make([]byte, 3*cap(b))...)[:len(b)]
		}
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

func openAt(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

// procFile is a file that is read from its beginning to its end.
type procFile struct {
	fd    int
	path  string
	whole bool // see Sub
	ended bool
}

func (f *procFile) Read(p []byte) (int, error) {
	if f.ended {
		return 0, io.EOF
	}
	for {
		n, err := unix.Read(f.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		f.ended = f.whole && n < len(p)
		return n, nil
	}
}

func (f *procFile) Close() error { return unix.Close(f.fd) }

func (f *procFile) Stat() (fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "stat", Path: f.path, Err: errors.ErrUnsupported}
}

// procEntry is the name of an entry.
type procEntry string

func (e procEntry) Name() string    { return string(e) }
func (procEntry) IsDir() bool       { return false }
func (procEntry) Type() fs.FileMode { return fs.ModeIrregular }
func (e procEntry) Info() (fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "lstat", Path: string(e), Err: errors.ErrUnsupported}
}
