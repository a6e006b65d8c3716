//go:build amd64

package regfile

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the files that have a name.
func Collect(t *collect.Tree) error {
	// Files that are found to have more than a name are added to the list meanwhile; they are claimed with it.
	for _, f := range slices.Clone(t.Files.All) {
		if f.Object != nil || !strings.HasPrefix(f.Link, "/") {
			continue
		}
		if err := claim(t, f); err != nil {
			return fmt.Errorf("%s: %w", f.Where(), err)
		}
	}
	return nil
}

func claim(t *collect.Tree, f *collect.File) error {
	var st unix.Stat_t
	if err := unix.Stat(f.Path, &st); err != nil {
		return err
	}
	if why := nameless(f, &st); why != "" {
		// Claimed all the same, so that it is refused once.
		f.Object = &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: f.Link}}
		t.Report.Unsupported(f.Where(), "%s", why)
		return nil
	}
	o := &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: f.Link}, Pos: f.Info.Pos, Mode: &st.Mode}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		o.Size = new(uint64(st.Size))
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

// nameless says why a file cannot be opened again by the name that /proc shows, "" if it can.
func nameless(f *collect.File, st *unix.Stat_t) string {
	var named unix.Stat_t
	// The link in /proc leads to the file itself, so what it leads to is never followed further.
	err := unix.Lstat(f.Link, &named)
	switch {
	case err == nil && named.Dev == st.Dev && named.Ino == st.Ino:
		return ""
	case err == nil:
		return "the name leads to another file by now"
	case st.Nlink == 0 && errors.Is(err, fs.ErrNotExist), strings.HasSuffix(f.Link, " (deleted)") && errors.Is(err, fs.ErrNotExist):
		return "the file was deleted; deleted files cannot be saved yet"
	}
	return fmt.Sprintf("the name does not lead to it: %v", err)
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
