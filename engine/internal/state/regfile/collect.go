//go:build amd64

package regfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the files that have a name.
func Collect(t *collect.Tree) error {
	// Files that are found to have more than a name are added to the list meanwhile; they are claimed with it.
	c := claimer{tree: t, ids: make(buildIDs)}
	for _, f := range slices.Clone(t.Files.All) {
		if f.Object != nil || !strings.HasPrefix(f.Link, "/") {
			continue
		}
		if err := c.claim(f); err != nil {
			return fmt.Errorf("%s: %w", f.Where(), err)
		}
	}
	return nil
}

// A claimer claims files.
type claimer struct {
	tree   *collect.Tree
	ids    buildIDs
	ghosts map[inode]snapshot.GhostID
	mounts map[uint64]string // the types of file systems, by mount
}

func (c *claimer) claim(f *collect.File) error {
	t := c.tree
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if key, err := external(t, f, st.Ino); key != "" || err != nil {
		// Whoever restores hands it in. Mode is for CRIU, which compares it.
		f.Object = &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: key}, External: true, Pos: f.Info.Pos, Mode: &st.Mode}
		return err
	}
	o := &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: f.Link}, Pos: f.Info.Pos, Mode: &st.Mode}
	where, why := nameless(f, &st)
	if where != itsName {
		o.Path.Name = oldName(f.Link)
	}
	switch {
	case where == nowhere:
		o.Ghost, why, err = c.ghost(f, &st)
	case where == elsewhere && t.LinkRemap:
		o.Link, why, err = c.link(f, &st)
	}
	if err != nil {
		return err
	}
	if why != "" {
		// Claimed all the same, so that it is refused once.
		f.Object = o
		t.Report.Unsupported(f.Where(), "%s", why)
		return nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if f.Flags&unix.O_APPEND == 0 || f.Flags&unix.O_WRONLY == 0 {
			o.Size = new(uint64(st.Size))
		} // else others may write to it, too, as to a log
		if f.Flags&unix.O_TMPFILE == unix.O_TMPFILE {
			f.Flags &^= unix.O_TMPFILE // to be opened with these flags would make another file
		}
		if t.BuildIDs {
			o.BuildID = c.ids.of(f, &st)
		}
	case unix.S_IFDIR:
	case unix.S_IFIFO:
		if f.Flags&unix.O_PATH == 0 {
			t.Name(f).Object = o
			return nil
		}
	case unix.S_IFCHR:
		if f.Flags&unix.O_PATH == 0 && !plainDevice(st.Rdev) {
			return nil
		}
	case unix.S_IFLNK, unix.S_IFBLK, unix.S_IFSOCK:
		if f.Flags&unix.O_PATH == 0 {
			return nil
		}
	default:
		return nil
	}
	f.Object = o
	return nil
}

// external returns the key of a file that is not the tree's own, "" of one that is.
func external(t *collect.Tree, f *collect.File, ino uint64) (string, error) {
	if len(t.External) == 0 {
		return "", nil
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, f.Path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return "", fmt.Errorf("statx: %w", err)
	}
	key := fmt.Sprintf("file[%x:%x]", st.Mnt_id, ino)
	if !slices.Contains(t.External, key) {
		return "", nil
	}
	return key, nil
}

// buildIDs are those of the files that were looked at.
type buildIDs map[inode][]byte

type inode struct{ dev, ino uint64 }

// of returns the build-id of a file, nil for none. A file that cannot be read has none for us: it is a check more, and nothing
// that is needed.
func (ids buildIDs) of(f *collect.File, st *unix.Stat_t) []byte {
	if st.Size < elfHeader {
		return nil
	}
	key := inode{st.Dev, st.Ino}
	id, ok := ids[key]
	if ok {
		return id
	}
	// Not to wait for whoever has a lease.
	if fd, err := unix.Open(f.Path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err == nil {
		file := os.NewFile(uintptr(fd), f.Link)
		id, _ = readBuildID(file)
		_ = file.Close()
	}
	if len(id)%4 != 0 {
		id = nil // images have words
	}
	ids[key] = id
	return id
}

// names is where a file has one.
type names int

const (
	itsName   names = iota // the one that /proc shows
	elsewhere              // that one is gone, and there are others
	nowhere                // there is none
)

// nameless finds out where a file has a name, and says why it cannot be opened again by the one that /proc shows.
func nameless(f *collect.File, st *unix.Stat_t) (where names, why string) {
	var named unix.Stat_t
	// The link in /proc leads to the file itself, so what it leads to is never followed further.
	err := unix.Lstat(f.Link, &named)
	deleted := strings.HasSuffix(f.Link, collect.Deleted)
	switch {
	case err == nil && named.Dev == st.Dev && named.Ino == st.Ino:
		return itsName, ""
	case strings.HasPrefix(f.Link, "/memfd:"):
		return itsName, "a memfd cannot be saved yet"
	case st.Nlink == 0 && deleted:
		return nowhere, ""
	case err == nil:
		return itsName, "the name leads to another file by now"
	case deleted && errors.Is(err, fs.ErrNotExist):
		return elsewhere, "the name was deleted, and the file has others, which are not known: allow one to be made for it (link-remap)"
	}
	return itsName, fmt.Sprintf("the name does not lead to it: %v", err)
}

// plainDevice tells whether a character device has no state: null, zero, full, random and urandom.
func plainDevice(rdev uint64) bool {
	if unix.Major(rdev) != 1 {
		return false
	}
	switch unix.Minor(rdev) {
	case 3, 5, 7, 8, 9:
		return true
	}
	return false
}
