//go:build amd64

package apply

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
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
	all   []*os.File
	named map[key]int // index in all
}

type key struct {
	id    snapshot.FileID
	flags uint32
	only  bool // opened for mappings with these flags
}

// Add keeps a file that was opened for a file of the snapshot.
func (f *Files) Add(id snapshot.FileID, file *os.File) { f.add(key{id: id}, file) }

// AddMapping keeps a file that was opened with certain flags to be mapped.
func (f *Files) AddMapping(id snapshot.FileID, flags uint32, file *os.File) {
	f.add(key{id, flags, true}, file)
}

func (f *Files) add(k key, file *os.File) {
	if f.named == nil {
		f.named = make(map[key]int)
	}
	f.named[k] = len(f.all)
	f.all = append(f.all, file)
}

// All returns the files in the order of their numbers.
func (f *Files) All() []*os.File { return f.all }

// Ours returns the file that the engine has opened for a file of the snapshot, nil for none.
func (f *Files) Ours(id snapshot.FileID) *os.File {
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
	for _, file := range f.all {
		_ = file.Close()
	}
	f.all, f.named = nil, nil
}

// SetFlags gives an open file those of its flags that open(2) did not: all that fcntl(2) can set, but O_ASYNC, which waits for
// the file's owner.
func SetFlags(fd int, flags uint32) error {
	const settable = unix.O_APPEND | unix.O_NONBLOCK | unix.O_DIRECT | unix.O_NOATIME
	now, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("fcntl(F_GETFL): %w", err)
	}
	if uint32(now)&settable == flags&settable {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, int(flags&settable)); err != nil {
		return fmt.Errorf("fcntl(F_SETFL, %#o): %w", flags&settable, err)
	}
	return nil
}

// NewFile makes a file of a descriptor. The file's flags stay as they are, and the runtime does not wait for it: it is the restored
// processes' file.
func NewFile(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		return os.NewFile(uintptr(fd), name)
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	f := os.NewFile(uintptr(fd), name)
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return f
}
