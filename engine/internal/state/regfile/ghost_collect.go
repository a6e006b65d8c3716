//go:build amd64

package regfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// oldName is the name that a file had before it was gone, without what a restore has added to the name of a ghost.
func oldName(link string) string {
	name := strings.TrimSuffix(link, collect.Deleted)
	if at := strings.LastIndex(name, suffix); at >= 0 && len(name) == at+len(suffix)+suffixDigits {
		if strings.Trim(name[at+len(suffix):], "0123456789abcdef") == "" {
			return name[:at]
		}
	}
	return name
}

// ghost finds the ghost that stands for a file, and makes it of the first file of its inode. It says why that cannot be saved.
func (c *claimer) ghost(f *collect.File, st *unix.Stat_t) (id snapshot.GhostID, why string, err error) {
	key := inode{st.Dev, st.Ino}
	if id := c.ghosts[key]; id != 0 {
		return id, "", nil
	}
	g := &snapshot.Ghost{
		ID: snapshot.GhostID(len(c.tree.Snapshot.Ghosts) + 1), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Inode: &st.Ino,
		Device: new(unix.Major(st.Dev)<<20 | unix.Minor(st.Dev)),
		Atime:  &snapshot.Timespec{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, Mtime: &snapshot.Timespec{Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec},
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if why, err = c.content(f, st, g); why != "" || err != nil {
			return 0, why, err
		}
	case unix.S_IFDIR, unix.S_IFIFO:
	case unix.S_IFLNK:
		if g.Target, err = target(f); err != nil {
			return 0, "", err
		}
	default:
		return 0, fmt.Sprintf("a %s whose name is gone cannot be saved yet", kindName(st.Mode)), nil
	}
	if why, err = c.hidden(f); why != "" || err != nil {
		return 0, why, err
	}
	if c.ghosts == nil {
		c.ghosts, c.tree.Ghosts = make(map[inode]snapshot.GhostID), make(map[snapshot.GhostID]*collect.File)
	}
	c.ghosts[key], c.tree.Ghosts[g.ID] = g.ID, f
	c.tree.Snapshot.Ghosts = append(c.tree.Snapshot.Ghosts, g)
	return g.ID, "", nil
}

// target reads where a symbolic link leads to that somebody has open.
func target(f *collect.File) (string, error) {
	fd, err := unix.Open(f.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	text := make([]byte, maxName)
	n, err := unix.Readlinkat(fd, "", text)
	if err != nil {
		return "", fmt.Errorf("readlinkat: %w", err)
	}
	return string(text[:n]), nil
}

// content finds out how much is in a file.
func (c *claimer) content(f *collect.File, st *unix.Stat_t, g *snapshot.Ghost) (why string, err error) {
	g.Size = uint64(st.Size)
	file, err := openGhost(f)
	if err != nil {
		return fmt.Sprintf("the file was deleted, and what is in it cannot be read: %v", err), nil
	}
	defer file.Close()
	parts, err := dataOf(file, g.Size)
	if err != nil {
		return "", err
	}
	bytes := uint64(0)
	for _, p := range parts {
		bytes += p.length
	}
	if bytes > c.tree.GhostLimit {
		return fmt.Sprintf("the file was deleted, and the %d bytes in it are more than the limit of %d for such files: raise it (ghost-limit)", bytes, c.tree.GhostLimit), nil
	}
	g.Sparse = bytes < g.Size
	return "", nil
}

// hidden says why a file could not be made again where it is: its file system is mounted nowhere, or is
// the kernel's.
func (c *claimer) hidden(f *collect.File) (why string, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, f.Path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return "", fmt.Errorf("statx: %w", err)
	}
	if c.mounts == nil {
		mounts, err := c.tree.Proc.Process(os.Getpid()).MountInfo() // the tree has the same, and may see less of them
		if err != nil {
			return "", err
		}
		c.mounts = make(map[uint64]string, len(mounts))
		for i := range mounts {
			c.mounts[uint64(mounts[i].ID)] = mounts[i].FSType
		}
	}
	switch kind := c.mounts[st.Mnt_id]; kind {
	case "":
		return "it has no name, in a file system that is mounted nowhere", nil
	case "proc", "sysfs", "cgroup2", "devpts":
		return fmt.Sprintf("it is gone from %s, where nobody can make it again", kind), nil
	}
	return "", nil
}

// openGhost opens a file that has no name to be read, by the link that leads to it.
func openGhost(f *collect.File) (*os.File, error) {
	fd, err := unix.Open(f.Path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Link), nil
}

// A part of a file has something in it, and is no hole.
type part struct{ offset, length uint64 }

// dataOf finds what of the first bytes of a file is no hole.
func dataOf(f *os.File, size uint64) (parts []part, err error) {
	for at := int64(0); at < int64(size); {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // there is only a hole
		}
		if err != nil {
			return nil, fmt.Errorf("look for data behind %d: %w", at, err)
		}
		end, err := unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("look for a hole behind %d: %w", begin, err)
		}
		begin, end = min(begin, int64(size)), min(end, int64(size))
		if begin < end {
			parts = append(parts, part{uint64(begin), uint64(end - begin)})
		}
		at = end
	}
	return parts, nil
}

// Write writes what is in the files that have no name. The tree stands still.
func Write(t *collect.Tree, set *images.Set, dir image.Dir) error {
	ghosts := make(map[snapshot.GhostID]*snapshot.Ghost, len(t.Snapshot.Ghosts))
	for _, g := range t.Snapshot.Ghosts {
		ghosts[g.ID] = g
	}
	for i := range set.Ghosts {
		id := snapshot.GhostID(set.Ghosts[i].ID)
		w, err := image.Create(dir, image.GhostFile, uint64(id))
		if err != nil {
			return err
		}
		err = w.Put(&set.Ghosts[i].Entry)
		if err == nil && ghosts[id].Mode&unix.S_IFMT == unix.S_IFREG {
			err = writeContent(w, t.Ghosts[id], ghosts[id])
		}
		if err = errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("%s: %w", t.Ghosts[id].Where(), err)
		}
	}
	return nil
}

func writeContent(w *image.Writer, from *collect.File, g *snapshot.Ghost) error {
	f, err := openGhost(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if !g.Sparse {
		return copyPart(w, f, part{0, g.Size})
	}
	parts, err := dataOf(f, g.Size)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := w.Put(&entry.GhostChunk{Off: p.offset, Len: p.length}); err != nil {
			return err
		}
		if err := copyPart(w, f, p); err != nil {
			return err
		}
	}
	return nil
}

func copyPart(w io.Writer, f *os.File, p part) error {
	n, err := io.Copy(w, io.NewSectionReader(f, int64(p.offset), int64(p.length)))
	if err == nil && uint64(n) != p.length {
		err = fmt.Errorf("somebody has made it shorter: of %d bytes at %d there are %d", p.length, p.offset, n)
	}
	return err
}
