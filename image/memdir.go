package image

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"
)

// NewMemDir returns an image directory in memory: for tests, and for images that never reach a disk. Its parent, if not
// nil, is what Parent returns; SetParent does not change it, there is no path to follow.
func NewMemDir(parent Dir) Dir {
	return &memDir{parent: parent, files: map[string]*memFile{}}
}

type memDir struct {
	parent Dir

	mu    sync.Mutex
	files map[string]*memFile
}

// memFile is the content of a file; readers and writers share it.
type memFile struct {
	name string
	mu   sync.RWMutex
	data []byte
}

func (d *memDir) Open(name string) (File, error) {
	if err := checkName("open", name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memHandle{f: f}, nil
}

func (d *memDir) Create(name string) (NewFile, error) {
	if err := checkName("create", name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &memFile{name: name}
	d.files[name] = f
	return &memHandle{f: f}, nil
}

func (d *memDir) Remove(name string) error {
	if err := checkName("remove", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(d.files, name)
	return nil
}

func (d *memDir) Names() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files)), nil
}

func (d *memDir) Parent() (Dir, error) {
	if d.parent == nil {
		return nil, &fs.PathError{Op: "open", Path: ParentLink, Err: fs.ErrNotExist}
	}
	return noClose{d.parent}, nil
}

// noClose keeps a directory that somebody else owns open.
type noClose struct{ Dir }

func (noClose) Close() error { return nil }

func (d *memDir) SetParent(string) error { return nil }
func (d *memDir) Close() error           { return nil }

// memHandle is a memFile with an offset.
type memHandle struct {
	f   *memFile
	off int64
}

func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	h.f.mu.RLock()
	defer h.f.mu.RUnlock()
	return bytes.NewReader(h.f.data).ReadAt(p, off)
}

func (h *memHandle) Read(p []byte) (int, error) {
	n, err := h.ReadAt(p, h.off)
	h.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if end := off + int64(len(p)); end > int64(len(h.f.data)) {
		h.f.data = append(h.f.data, make([]byte, end-int64(len(h.f.data)))...)
	}
	return copy(h.f.data[off:], p), nil
}

func (h *memHandle) Write(p []byte) (int, error) {
	n, err := h.WriteAt(p, h.off)
	h.off += int64(n)
	return n, err
}

func (h *memHandle) Close() error { return nil }

func (h *memHandle) Stat() (fs.FileInfo, error) {
	h.f.mu.RLock()
	defer h.f.mu.RUnlock()
	return memInfo{h.f.name, int64(len(h.f.data))}, nil
}

type memInfo struct {
	name string
	size int64
}

func (i memInfo) Name() string     { return i.name }
func (i memInfo) Size() int64      { return i.size }
func (memInfo) Mode() fs.FileMode  { return 0o600 }
func (memInfo) ModTime() time.Time { return time.Time{} }
func (memInfo) IsDir() bool        { return false }
func (memInfo) Sys() any           { return nil }

var _ interface {
	File
	NewFile
} = (*memHandle)(nil)

// NewFSDir returns an image directory that reads from a file system, an archive for one. It cannot be written. A parent
// is found where the file system has it as a directory of that name: an fs.FS has no links that lead out.
func NewFSDir(fsys fs.FS) Dir { return fsDir{fsys} }

type fsDir struct{ fsys fs.FS }

func (d fsDir) Open(name string) (File, error) {
	if err := checkName("open", name); err != nil {
		return nil, err
	}
	f, err := d.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	r, ok := f.(io.ReaderAt)
	if !ok || !st.Mode().IsRegular() {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return fsFile{f, r}, nil
}

type fsFile struct {
	fs.File
	io.ReaderAt
}

func (d fsDir) Create(name string) (NewFile, error) {
	return nil, &fs.PathError{Op: "create", Path: name, Err: ErrReadOnly}
}

func (d fsDir) Remove(name string) error {
	return &fs.PathError{Op: "remove", Path: name, Err: ErrReadOnly}
}

func (d fsDir) SetParent(string) error {
	return &fs.PathError{Op: "symlink", Path: ParentLink, Err: ErrReadOnly}
}

func (d fsDir) Names() ([]string, error) {
	list, err := fs.ReadDir(d.fsys, ".")
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	slices.Sort(names)
	return names, err
}

func (d fsDir) Parent() (Dir, error) {
	st, err := fs.Stat(d.fsys, ParentLink)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: ParentLink, Err: fs.ErrInvalid}
	}
	sub, err := fs.Sub(d.fsys, ParentLink)
	return fsDir{sub}, err
}

func (d fsDir) Close() error { return nil }
