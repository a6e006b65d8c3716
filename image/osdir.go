package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// OpenDir opens an image directory by its path. Parents of it are found as long as they are in the directory that it is in:
// the link of an image is as untrusted as all of it, and must not make somebody else's dump part of this one. See
// [OpenDirIn] for a wider circle.
func OpenDir(name string) (Dir, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, err
	}
	base, err := os.OpenRoot(filepath.Dir(abs))
	if errors.Is(err, fs.ErrPermission) {
		// No access to the directory above: then there are no parents but those inside.
		root, err := os.OpenRoot(abs)
		if err != nil {
			return nil, err
		}
		return newOSDir(nil, root, "."), nil
	}
	if err != nil {
		return nil, err
	}
	defer base.Close()
	return OpenDirIn(base, filepath.Base(abs))
}

// OpenDirIn opens the image directory with the given slash-separated name in base. Parents may be anywhere in base. Base
// stays the caller's and may be closed. Name must have no symbolic links in it but the last.
func OpenDirIn(base *os.Root, name string) (Dir, error) {
	if filepath.IsAbs(name) {
		name = "." // only "/" in "/" comes here
	}
	root, err := base.OpenRoot(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	again, err := base.OpenRoot(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	return newOSDir(again, root, path.Clean(name)), nil
}

// OpenDirFile opens an image directory that is already open as f, which stays the caller's. It needs /proc. As with
// OpenDir, parents are found in the directory above.
func OpenDirFile(f *os.File) (Dir, error) {
	link := "/proc/self/fd/" + strconv.FormatUint(uint64(f.Fd()), 10)
	root, err := os.OpenRoot(link)
	if err != nil {
		return nil, fmt.Errorf("image directory on descriptor %d: %w", f.Fd(), err)
	}
	d := newOSDir(nil, root, ".")
	// The name is only for following parents; it is believed if it leads back here.
	name, err := os.Readlink(link)
	if err != nil {
		return d, nil
	}
	base, err := os.OpenRoot(link + "/..")
	if err != nil {
		return d, nil
	}
	there, err1 := base.Stat(filepath.Base(name))
	here, err2 := f.Stat()
	if err1 != nil || err2 != nil || !os.SameFile(there, here) {
		base.Close()
		return d, nil
	}
	d.base, d.at = base, filepath.Base(name)
	return d, nil
}

// maxNames bounds the files of a directory: there are five for each thread that the kernel can have.
const maxNames = 5 << 22

type osDir struct {
	root *os.Root
	here *os.File // what root is; nil where it cannot be read
	base *os.Root // where parents may be; nil for only inside root
	at   string   // slash-separated name of root in base, clean and without symbolic links before its last element

	rooms rooms
}

// fileMode is that of a new file: memory holds secrets.
const fileMode = 0o600

func newOSDir(base, root *os.Root, at string) *osDir {
	here, err := root.Open(".")
	if err != nil {
		here = nil
	}
	return &osDir{base: base, root: root, here: here, at: at}
}

func (d *osDir) Open(name string) (File, error) {
	if err := checkName("open", name); err != nil {
		return nil, err
	}
	f, err := d.openIn(name, os.O_RDONLY|openFlags)
	if err != nil {
		return nil, err
	}
	// A fifo or a device in the place of an image must not block the reader or do what opening such a file does.
	if regular(f) {
		return f, nil
	}
	st, err := f.Stat()
	f.Close()
	if err == nil {
		err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w: an image is a regular file, not %v", fs.ErrInvalid, st.Mode().Type())}
	}
	return nil, err
}

func (d *osDir) Create(name string) (NewFile, error) {
	if err := checkName("create", name); err != nil {
		return nil, err
	}
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	f, err := d.openIn(name, flags)
	if errors.Is(err, fs.ErrExist) {
		if err := d.root.Remove(name); err != nil {
			return nil, err
		}
		f, err = d.openIn(name, flags)
	}
	if err != nil {
		return nil, err // not f: a nil *os.File in an interface is not nil
	}
	return f, nil
}

func (d *osDir) Remove(name string) error {
	if err := checkName("remove", name); err != nil {
		return err
	}
	return d.root.Remove(name)
}

func (d *osDir) Names() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		some, err := f.Readdirnames(1 << 12)
		names = append(names, some...)
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		if len(names) > maxNames {
			return nil, fmt.Errorf("%w: more than %d files in %s", ErrLimit, maxNames, d.root.Name())
		}
	}
}

func (d *osDir) Parent() (Dir, error) {
	st, err := d.root.Lstat(ParentLink)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := d.root.OpenRoot(ParentLink)
		if err != nil {
			return nil, err
		}
		return newOSDir(nil, root, "."), nil
	}
	target, err := d.root.Readlink(ParentLink)
	if err != nil {
		return nil, err
	}
	base := d.base
	if base == nil {
		base = d.root
	}
	to := filepath.ToSlash(target)
	if filepath.IsAbs(target) {
		if to, err = filepath.Rel(base.Name(), target); err != nil {
			to = ".."
		}
		to = filepath.ToSlash(to)
	} else {
		to = path.Join(d.at, to)
	}
	if to == ".." || strings.HasPrefix(to, "../") {
		return nil, &fs.PathError{Op: "open", Path: ParentLink, Err: fmt.Errorf("%w: it leads to %s, which is not in %s; open the directory with a base that holds both", fs.ErrPermission, target, base.Name())}
	}
	p, err := OpenDirIn(base, to)
	if err != nil {
		return nil, fmt.Errorf("%s, which leads to %s: %w", ParentLink, target, err)
	}
	return p, nil
}

func (d *osDir) SetParent(target string) error {
	if err := d.root.Remove(ParentLink); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.root.Symlink(target, ParentLink)
}

func (d *osDir) Close() error {
	err := d.root.Close()
	if d.here != nil {
		err = errors.Join(err, d.here.Close())
	}
	if d.base != nil {
		err = errors.Join(err, d.base.Close())
	}
	return err
}
