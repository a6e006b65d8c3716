//go:build amd64

package regfile

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// link makes a name for a file that has lost its own and has others, in the directory that it was in, and says why that cannot be
// done. Each file of an inode has a name of its own, as CRIU has it.
func (c *claimer) link(f *collect.File, st *unix.Stat_t) (id snapshot.FileID, why string, err error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fmt.Sprintf("a %s whose name is gone, and that has others, cannot be saved yet", kindName(st.Mode)), nil
	}
	// No link of somebody's may lead it elsewhere.
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	parent := path.Dir(oldName(f.Link))
	dir, err := unix.Openat2(unix.AT_FDCWD, parent, how)
	if err != nil {
		return 0, fmt.Sprintf("its name is gone, and no other can be made in %s: %v", parent, err), nil
	}
	named := c.tree.Name(f)
	named.Flags, named.Owner = 0, snapshot.Owner{}
	l := collect.Link{Dir: dir, Name: fmt.Sprint(linkName, named.ID)}
	l.Path = path.Join(parent, l.Name)
	if err := c.tree.Kernel.Link(f.Path, dir, l.Name); err != nil {
		_ = unix.Close(dir)
		return 0, "", fmt.Errorf("make the name %s for it: %w", l.Path, err)
	}
	c.tree.Links = append(c.tree.Links, l)
	named.Object = &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: l.Path}}
	return named.ID, "", nil
}

// Unlink takes the names away that were made.
func Unlink(t *collect.Tree) error {
	var errs []error
	for _, l := range t.Links {
		err := t.Kernel.Unlink(l.Dir, l.Name, 0)
		if err != nil {
			err = unix.Unlinkat(l.Dir, l.Name, 0) // it should not stay
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take away %s, which was made for a file that has lost its name: %w", l.Path, err))
		}
	}
	CloseLinks(t)
	return errors.Join(errs...)
}

// CloseLinks leaves the names where they are.
func CloseLinks(t *collect.Tree) {
	for _, l := range t.Links {
		_ = unix.Close(l.Dir)
	}
	t.Links = nil
}
