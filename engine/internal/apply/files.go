//go:build amd64

package apply

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
)

// Files are the files that the engine has opened for a tree, and the numbers that they have in all its processes while these
// are being made.
type Files struct {
	// Root is the root directory of the restore: names are looked up below it.
	Root *os.File
	// CheckSize and CheckBuildID say how files are compared with those of the dump (--file-validation); SkipMode leaves out
	// the comparison of their permissions (--skip-file-rwx-check).
	CheckSize, CheckBuildID, SkipMode bool

	// Late are files that do not exist yet: a process opens each by its name when it is there.
	Late map[snapshot.FileID]bool

	first int // number of the first in the processes
	all   []*File
	named map[key]int // index in all
}

type key struct {
	id    snapshot.FileID
	flags uint32
	only  bool // opened for mappings with these flags
}

// Add keeps a file that was opened for a file of the snapshot.
func (f *Files) Add(id snapshot.FileID, file *File) { f.add(key{id: id}, file) }

// AddMapping keeps a file that was opened with certain flags to be mapped.
func (f *Files) AddMapping(id snapshot.FileID, flags uint32, file *File) {
	f.add(key{id, flags, true}, file)
}

// Expect makes room for so many.
func (f *Files) Expect(n int) {
	f.all, f.named = slices.Grow(f.all, n), make(map[key]int, n)
}

func (f *Files) add(k key, file *File) {
	if f.named == nil {
		f.Expect(0)
	}
	f.named[k] = len(f.all)
	f.all = append(f.all, file)
}

// All returns the descriptors that the files have here, in the order of their numbers there.
func (f *Files) All() []int {
	fds := make([]int, len(f.all))
	for i, file := range f.all {
		fds[i] = file.fd
	}
	return fds
}

// Ours returns the file that the engine has opened for a file of the snapshot, nil for none.
func (f *Files) Ours(id snapshot.FileID) *File {
	if i, ok := f.named[key{id: id}]; ok {
		return f.all[i]
	}
	return nil
}

// Number returns the number that a file has in the processes.
func (f *Files) Number(id snapshot.FileID) (int, error) { return f.number(key{id: id}) }

// Mapping returns the number of a file that was opened to be mapped.
func (f *Files) Mapping(id snapshot.FileID, flags uint32) (int, error) {
	return f.number(key{id, flags, true})
}

func (f *Files) number(k key) (int, error) {
	i, ok := f.named[k]
	if !ok {
		return 0, fmt.Errorf("file %d was not opened", k.id)
	}
	return f.first + i, nil
}

// Range returns the numbers that the files have in the processes: from first to, not including, end.
func (f *Files) Range() (first, end int) { return f.first, f.first + len(f.all) }

// Place chooses the numbers: the lowest ones in a row that no descriptor of the tree has.
func (f *Files) Place(t *snapshot.Tree) {
	used := make(map[int]bool)
	for _, table := range t.Tables {
		for _, s := range table.Slots {
			used[s.FD] = true
		}
	}
	const lowest = 3 // the standard ones are nobody's to play with
	at, free := lowest, 0
	for fd := lowest; free < len(f.all); fd++ {
		if used[fd] {
			at, free = fd+1, 0
		} else {
			free++
		}
	}
	f.first = at
}

// Close closes the engine's files.
func (f *Files) Close() {
	fds := f.All()
	for _, file := range f.all {
		file.fd = -1
	}
	f.all, f.named = nil, nil
	linux.CloseAll(fds)
}

// settable are the flags that fcntl(2) can set, but for O_ASYNC, which waits for the file's owner.
const settable = unix.O_APPEND | unix.O_NONBLOCK | unix.O_DIRECT | unix.O_NOATIME

// SetFlags gives an open file those of its flags that open(2) did not.
func SetFlags(fd int, flags uint32) error {
	now, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("fcntl(F_GETFL): %w", err)
	}
	return ChangeFlags(fd, uint32(now), flags)
}

// ChangeFlags is SetFlags for a file whose flags are known: it was just opened with them.
func ChangeFlags(fd int, now, flags uint32) error {
	if now&settable == flags&settable {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, int(flags&settable)); err != nil {
		return fmt.Errorf("fcntl(F_SETFL, %#o): %w", flags&settable, err)
	}
	return nil
}

// A File is a file that the engine has open for the processes, close-on-exec. It is no os.File: its flags are the processes', and the
// runtime has no part in it. There may be tens of thousands.
type File struct{ fd int }

// NewFile makes a file of a descriptor, which was opened with O_CLOEXEC.
func NewFile(fd int) *File { return &File{fd} }

// Fd returns the descriptor.
func (f *File) Fd() uintptr { return uintptr(f.fd) }

// Close closes the file, if that has not been done.
func (f *File) Close() error {
	if f.fd < 0 {
		return os.ErrClosed
	}
	fd := f.fd
	f.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}
