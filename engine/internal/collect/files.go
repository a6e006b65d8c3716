//go:build amd64

package collect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// Files are the files of the tree that were seen: open ones, and those that are mapped, executed or somebody's directory.
// Package fds and those who need a file by name add them; the packages of the kinds of files claim what they know, by giving
// it an object. What nobody claims is refused.
type Files struct {
	All []*File

	open  map[openKey]*alike
	named map[namedKey]*File
}

// A File is a file that was seen.
type File struct {
	*snapshot.File
	Holder
	FD   int         // -1 for one that is not open
	Link string      // what the link in /proc says
	Path string      // of that link
	Info proc.FDInfo // of an open file
	Node *File       // of a fifo or a terminal: the file that has its name

	stat *unix.Stat_t // until somebody asks for it
}

type openKey struct {
	link       string
	inode, pos uint64
	flags      uint32
}

type namedKey struct {
	link     string
	flags    uint32
	dev, ino uint64 // of a file whose name is gone: others may have had the same
}

// Deleted is what the kernel adds to a name that is gone.
const Deleted = " (deleted)"

func (fs *Files) add(f *File) *File {
	f.File = &snapshot.File{ID: snapshot.FileID(len(fs.All) + 1)}
	fs.All = append(fs.All, f)
	return f
}

// Open calls a function for each descriptor of a process, or of a thread with a table of its own, in the order of their numbers, with
// the open file that it is. One that was seen before, under another number or in another process, is the same; isNew says that it was
// not.
func (t *Tree) Open(h Holder, yield func(fd int, f *File, isNew, closeOnExec bool) error) error {
	return look(h.Dir, func(d *descriptor) error {
		key := openKey{d.link, d.info.Ino, d.info.Pos, d.info.Flags &^ unix.O_CLOEXEC}
		f, isNew, err := t.opened(h, d, key)
		if err != nil {
			return fmt.Errorf("descriptor %d: %w", d.fd, err)
		}
		return yield(d.fd, f, isNew, d.info.Flags&unix.O_CLOEXEC != 0)
	})
}

func (t *Tree) opened(h Holder, d *descriptor, key openKey) (f *File, isNew bool, err error) {
	// Those that look alike are kept in the kernel's order.
	s := t.Files.open[key]
	if s == nil {
		s = new(alike)
		if t.Files.open == nil {
			t.Files.open = make(map[openKey]*alike)
		}
		t.Files.open[key] = s
	}
	at, found, err := s.find(func(other *File) (int, error) {
		return t.Kernel.Order(h.TID, other.TID, linux.SameFile, d.fd, other.FD)
	})
	if err != nil {
		return nil, false, err
	}
	if found {
		return s.files[at], false, nil
	}
	f = t.Files.add(&File{Holder: h, FD: d.fd, Link: d.link, Path: h.Path("fd/" + strconv.Itoa(d.fd)), Info: d.info})
	f.Flags = key.flags
	s.files = slices.Insert(s.files, at, f)
	s.last = at
	return f, true, nil
}

// alike are files that look alike, in the kernel's order.
type alike struct {
	files []*File
	last  int // that was asked for
}

// find looks a file up, or where it belongs. It begins with the last one: what was duplicated was so at once as a rule, and has the
// next number.
func (s *alike) find(order func(*File) (int, error)) (at int, found bool, err error) {
	low, high := 0, len(s.files)
	for probe := s.last; low < high; probe = (low + high) / 2 {
		n, err := order(s.files[probe])
		switch {
		case err != nil:
			return 0, false, err
		case n == 0:
			s.last = probe
			return probe, true, nil
		case n < 0:
			high = probe
		default:
			low = probe + 1
		}
	}
	return low, false, nil
}

// Named returns the file that a link in a task's directory of /proc leads to, "exe" for one, as it is to be opened with the
// flags given. Files with equal links and flags are one, unless their name is gone.
func (t *Tree) Named(h Holder, name, link string, flags uint32) *File {
	key := namedKey{link: link, flags: flags}
	var st unix.Stat_t
	if strings.HasSuffix(link, Deleted) && unix.Stat(h.Path(name), &st) == nil { // who claims the file looks again, and fails
		key.dev, key.ino = st.Dev, st.Ino
	}
	if f := t.Files.named[key]; f != nil {
		return f
	}
	f := t.Files.add(&File{Holder: h, FD: -1, Link: link, Path: h.Path(name)})
	f.Flags = flags
	if t.Files.named == nil {
		t.Files.named = make(map[namedKey]*File)
	}
	t.Files.named[key] = f
	return f
}

// Name makes a file of the name of an open file that is more than its name: of a fifo, of a terminal.
func (t *Tree) Name(f *File) *File {
	f.Node = t.Files.add(&File{Holder: f.Holder, FD: -1, Link: f.Link, Path: f.Path, Info: f.Info})
	f.Node.Flags, f.Node.Owner = f.Flags, f.Owner
	return f.Node
}

// Where names the file in reports.
func (f *File) Where() string {
	if f.FD >= 0 {
		return fmt.Sprintf("%s: descriptor %d (%s)", f.Holder.Where(), f.FD, f.Link)
	}
	return fmt.Sprintf("%s: file %s", f.Holder.Where(), f.Link)
}

// Take duplicates an open file into this process, close-on-exec. Whoever takes it closes it.
func (f *File) Take() (int, error) {
	fd, err := f.take(f.FD)
	if err != nil {
		return -1, fmt.Errorf("%s: pidfd_getfd: %w", f.Where(), err)
	}
	return fd, nil
}

// Owner asks who gets SIGIO of an open file, and what the file is while it is here.
func (t *Tree) Owner(f *File) (linux.FileOwner, error) {
	fd, err := f.Take()
	if err != nil {
		return linux.FileOwner{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil { // else who asks will be told
		f.stat = &st
	}
	return t.Kernel.FileOwner(fd)
}

// Stat returns what the file itself is, not the name that it has.
func (f *File) Stat() (unix.Stat_t, error) {
	if st := f.stat; st != nil {
		f.stat = nil
		return *st, nil
	}
	var st unix.Stat_t
	err := unix.Stat(f.Path, &st)
	return st, err
}

// RefuseUnclaimed reports the files that no kind has claimed.
func (t *Tree) RefuseUnclaimed() {
	for _, f := range t.Files.All {
		if f.Object == nil {
			t.Report.Unsupported(f.Where(), "%s cannot be saved yet", f.what())
		}
	}
}

// what names a kind of file by its link.
func (f *File) what() string {
	for _, k := range []struct{ prefix, name string }{
		{"socket:", "a socket"}, {"anon_inode:[io_uring]", "an io_uring"}, {"anon_inode:inotify", "an inotify"}, {"anon_inode:[fanotify]", "a fanotify"},
		{"anon_inode:[userfaultfd]", "a userfaultfd"}, {"anon_inode:[pidfd]", "a pidfd"}, {"pidfd:", "a pidfd"}, {"anon_inode:bpf-map", "a BPF map"},
		{"anon_inode:bpf-prog", "a BPF program"}, {"anon_inode:[perf_event]", "a perf event"}, {"/memfd:", "a memfd"}, {"/dev/pts/", "a terminal"},
		{"/dev/tty", "a terminal"}, {"/dev/ptmx", "a terminal"}, {"mnt:", "a namespace"}, {"net:", "a namespace"}, {"pid:", "a namespace"},
		{"user:", "a namespace"}, {"uts:", "a namespace"}, {"ipc:", "a namespace"}, {"time:", "a namespace"}, {"cgroup:", "a namespace"},
	} {
		if strings.HasPrefix(f.Link, k.prefix) {
			return k.name
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(f.Path, &st); err == nil && (st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK) {
		return fmt.Sprintf("the device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return "a file of this kind"
}
