package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
)

// Descriptors are the descriptors of a task. The two directories that show them are open, as far as the /proc at hand can do that (its
// Sub): who asks for many spares the way there for each.
type Descriptors struct {
	root    *root
	dir     Dir
	fd      fs.FS
	info    fs.FS
	closers []io.Closer
}

// Descriptors opens the directories of a task's descriptors. They are to be closed.
func (d Dir) Descriptors() (*Descriptors, error) {
	t := &Descriptors{root: d.root, dir: d}
	for _, sub := range []struct {
		to   *fs.FS
		name string
	}{{&t.fd, "fd"}, {&t.info, "fdinfo"}} {
		opened, err := fs.Sub(d.root.FS, d.file(sub.name))
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		*sub.to = opened
		if c, ok := opened.(io.Closer); ok {
			t.closers = append(t.closers, c)
		}
	}
	return t, nil
}

// Close closes the directories.
func (t *Descriptors) Close() error {
	var errs []error
	for _, c := range t.closers {
		errs = append(errs, c.Close())
	}
	t.closers = nil
	return errors.Join(errs...)
}

// Numbers returns the open descriptors, ascending.
func (t *Descriptors) Numbers() ([]int, error) { return t.dir.FDs() }

// Link reads what a descriptor is of, as [Dir.Link] of "fd/7".
func (t *Descriptors) Link(fd int) (string, error) { return fs.ReadLink(t.fd, strconv.Itoa(fd)) }

// Info reads what fdinfo says of a descriptor.
func (t *Descriptors) Info(fd int) (FDInfo, error) {
	f, err := t.info.Open(strconv.Itoa(fd))
	if err != nil {
		return FDInfo{}, err
	}
	defer f.Close()
	b := t.root.reader(f)
	defer t.root.release(b)
	info, err := ParseFDInfo(b)
	if err != nil {
		return FDInfo{}, fmt.Errorf("descriptor %d: %w", fd, inFile(t.dir.file("fdinfo"), err))
	}
	return info, nil
}
