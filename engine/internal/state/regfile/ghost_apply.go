//go:build amd64

package regfile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
)

// suffix is what is added to the name of a ghost, with eight digits behind it, while it has one. /proc shows it from then on.
const (
	suffix       = ".stasis-"
	suffixDigits = 8
)

// Ghosts makes files that have no name, each when it is opened for the first time.
type Ghosts struct {
	Kernel *linux.Kernel
	Dir    image.Dir // of the images
	Tree   *snapshot.Tree

	known map[snapshot.GhostID]*snapshot.Ghost
	made  map[snapshot.GhostID]*haunt
	order []*haunt
	links []*haunt // names that the dump has made; they stay until the restore is done
}

// A haunt is a ghost that was made.
type haunt struct {
	ghost *snapshot.Ghost
	fd    int    // of a regular file; of others as a name
	dir   int    // where it has a name, -1 where it has none any more
	name  string // there
	// early are those that only a name can be opened for (O_NOFOLLOW), as long as there is one.
	early map[*snapshot.Regular]int

	dev, ino uint64 // of the file that a link is of
}

// Open opens a file that has no name, as [Open] does one that has.
func (g *Ghosts) Open(files *apply.Files, o *snapshot.Regular, flags uint32) (*apply.File, error) {
	f, err := g.open(files, o, flags)
	if err == nil && flags&unix.O_PATH == 0 {
		if err = seek(f, o); err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which was deleted: %w", o.Path.Name, err)
	}
	return f, nil
}

func (g *Ghosts) open(files *apply.Files, o *snapshot.Regular, flags uint32) (*apply.File, error) {
	h := g.made[o.Ghost]
	if h == nil {
		var err error
		if h, err = g.make(files, o); err != nil {
			return nil, err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return nil, err
	}
	if o.Size != nil && h.is(unix.S_IFREG) && files.CheckSize && uint64(st.Size) != *o.Size {
		return nil, fmt.Errorf("its size was %d, and in the image there are %d bytes", *o.Size, st.Size)
	}
	fd, ok := h.early[o]
	if ok && flags&unix.O_NOFOLLOW != 0 {
		delete(h.early, o)
	} else {
		var err error
		// It has no name but this one, which is a link.
		if fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", h.fd), h.how(flags)&^unix.O_NOFOLLOW, 0); err != nil {
			return nil, err
		}
	}
	if flags&unix.O_PATH == 0 {
		if err := apply.SetFlags(fd, flags); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
	}
	return apply.NewFile(fd), nil
}

// how returns the flags with which a ghost is opened: those that are not set afterwards.
func (h *haunt) how(flags uint32) int {
	how := int(flags&passed) | unix.O_CLOEXEC
	if flags&unix.O_PATH == 0 {
		how |= unix.O_NONBLOCK | unix.O_NOCTTY
		if h.is(unix.S_IFIFO) {
			how &^= unix.O_DIRECT // packet mode, which is only for fcntl to set
		}
	}
	return how
}

func (h *haunt) is(kind uint32) bool { return h.ghost.Mode&unix.S_IFMT == kind }

// make makes a ghost. Whatever it has made is in the list before it goes on, so that Close finds it.
func (g *Ghosts) make(files *apply.Files, o *snapshot.Regular) (*haunt, error) {
	if g.known == nil {
		g.known = byNumber(g.Tree)
	}
	ghost := g.known[o.Ghost]
	if ghost == nil {
		return nil, errors.New("it has no image")
	}
	h := &haunt{ghost: ghost, fd: -1}
	var err error
	if h.dir, err = home(files, o.Path.Name); err != nil {
		return nil, err
	}
	g.order = append(g.order, h)
	if err := g.appear(h, path.Base(o.Path.Name)); err != nil {
		return nil, err
	}
	if h.is(unix.S_IFREG) {
		if err := g.fill(h); err != nil {
			return nil, err
		}
	}
	if g.made == nil {
		g.made = make(map[snapshot.GhostID]*haunt)
	}
	g.made[ghost.ID] = h
	return h, nil
}

// OpenLinked opens a file by the name that the dump has made for it.
func (g *Ghosts) OpenLinked(files *apply.Files, link, o *snapshot.Regular, flags uint32) (*apply.File, error) {
	named := *o
	named.Path = link.Path
	f, err := Open(files, &named, flags)
	if err != nil {
		return nil, fmt.Errorf("%s, which was deleted: %w", o.Path.Name, err)
	}
	var st unix.Stat_t
	l := &haunt{name: path.Base(link.Path.Name)}
	if l.dir, err = openat2(files.Root, path.Dir(link.Path.Name), unix.O_PATH|unix.O_DIRECTORY); err == nil {
		g.links = append(g.links, l)
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	l.dev, l.ino = st.Dev, st.Ino
	return f, nil
}

// Unlink takes away the names that the dump has made, when nobody needs them any more.
func (g *Ghosts) Unlink() error {
	var errs []error
	for _, l := range g.links {
		var st unix.Stat_t
		err := unix.Fstatat(l.dir, l.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is the name of more than one
		}
		if err == nil && (st.Dev != l.dev || st.Ino != l.ino) {
			err = errors.New("it is another's by now")
		}
		if err == nil {
			err = g.Kernel.Unlink(l.dir, l.name, 0)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s, which the dump has made for a deleted file, stays: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}

// CloseLinks gives up what Unlink needs.
func (g *Ghosts) CloseLinks() {
	for _, l := range g.links {
		_ = unix.Close(l.dir)
	}
	g.links = nil
}

// home opens the directory that a file was in, or where that is gone the next one above it.
func home(files *apply.Files, name string) (int, error) {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		fd, err := openat2(files.Root, dir, unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			return fd, nil
		}
		if gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR); !gone || dir == "/" {
			return -1, fmt.Errorf("%s: %w", dir, err)
		}
	}
}

// appear makes the file under a name that nobody has, and takes the name away again. From then on the file is what was opened, and
// nobody else can have put another in its place.
func (g *Ghosts) appear(h *haunt, base string) error {
	const longest, tries = 255, 10
	var err error
	for range tries {
		var random [suffixDigits / 2]byte
		if _, err := unix.Getrandom(random[:], 0); err != nil {
			return fmt.Errorf("getrandom: %w", err)
		}
		end := suffix + hex.EncodeToString(random[:])
		name := base[:min(len(base), longest-len(end))] + end
		if err = g.create(h, name); !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("make it again: %w", err)
	}
	if err := g.openEarly(h); err != nil {
		return err
	}
	if err := g.vanish(h); err != nil {
		return fmt.Errorf("take its name away again: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return err
	}
	if st.Nlink != 0 || st.Mode&unix.S_IFMT != h.ghost.Mode&unix.S_IFMT {
		return errors.New("somebody has put another file in its place while it was made")
	}
	return nil
}

// openEarly opens what cannot be opened without a name: O_NOFOLLOW, which shm_open(3) has, does not follow a link to what is open.
func (g *Ghosts) openEarly(h *haunt) error {
	var made, opened unix.Stat_t
	if err := unix.Fstat(h.fd, &made); err != nil {
		return err
	}
	for _, f := range g.Tree.Files {
		o, ok := f.Object.(*snapshot.Regular)
		if !ok || o.Ghost != h.ghost.ID || f.Flags&unix.O_NOFOLLOW == 0 || h.is(unix.S_IFIFO) && f.Flags&unix.O_PATH == 0 {
			continue
		}
		fd, err := unix.Openat(h.dir, h.name, h.how(f.Flags), 0)
		if err != nil {
			return err
		}
		if h.early == nil {
			h.early = make(map[*snapshot.Regular]int)
		}
		h.early[o] = fd
		if err := unix.Fstat(fd, &opened); err != nil {
			return err
		}
		if opened.Dev != made.Dev || opened.Ino != made.Ino {
			return errors.New("somebody has put another file in its place while it was made")
		}
	}
	return nil
}

func (g *Ghosts) create(h *haunt, name string) (err error) {
	const private = 0o600
	switch {
	case h.is(unix.S_IFDIR):
		err = g.Kernel.MakeDirectory(h.dir, name, private|0o100)
	case h.is(unix.S_IFIFO):
		err = g.Kernel.MakeFIFO(h.dir, name, private)
	case h.is(unix.S_IFLNK):
		err = g.Kernel.MakeSymlink(h.ghost.Target, h.dir, name)
	default:
		h.fd, err = g.Kernel.MakeFile(h.dir, name, private)
	}
	if err != nil {
		return err
	}
	h.name = name
	if h.fd < 0 {
		h.fd, err = g.Kernel.OpenPath(h.dir, name)
	}
	return err
}

// vanish takes the name of a ghost away.
func (g *Ghosts) vanish(h *haunt) error {
	flags := 0
	if h.is(unix.S_IFDIR) {
		flags = unix.AT_REMOVEDIR
	}
	if err := g.Kernel.Unlink(h.dir, h.name, flags); err != nil {
		return err
	}
	h.name = ""
	err := unix.Close(h.dir)
	h.dir = -1
	return err
}

// fill puts into a regular file what was in it.
func (g *Ghosts) fill(h *haunt) error {
	in, err := image.Open(g.Dir, image.GhostFile, uint64(h.ghost.ID))
	if err != nil {
		return err
	}
	defer in.Close()
	var e entry.GhostFile
	if err := in.Next(&e); err != nil {
		return err
	}
	if !h.ghost.Sparse {
		_, err := io.Copy(&writerAt{fd: h.fd}, in.Rest())
		return err
	}
	if err := unix.Ftruncate(h.fd, int64(h.ghost.Size)); err != nil {
		return fmt.Errorf("a size of %d: %w", h.ghost.Size, err)
	}
	for {
		var c entry.GhostChunk
		if err := in.Next(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if c.Off > h.ghost.Size || c.Len > h.ghost.Size-c.Off {
			return fmt.Errorf("a chunk of %d bytes at %d: the image has changed", c.Len, c.Off)
		}
		if _, err := io.Copy(&writerAt{fd: h.fd, at: int64(c.Off)}, in.Payload(int64(c.Len))); err != nil {
			return err
		}
	}
}

// A writerAt writes to a file from an offset on, and leaves the file's own where it is.
type writerAt struct {
	fd int
	at int64
}

func (w *writerAt) Write(b []byte) (n int, err error) {
	for n < len(b) {
		wrote, err := unix.Pwrite(w.fd, b[n:], w.at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("put what was in it back: %w", err)
		}
		n, w.at = n+wrote, w.at+int64(wrote)
	}
	return n, nil
}

// Finish gives the files that were made their owners, modes and times, when all that have them open have. They are given up here: who
// executes a file wants it to be open for writing nowhere.
func (g *Ghosts) Finish() error {
	for _, h := range g.order {
		if err := g.finish(h); err != nil {
			return fmt.Errorf("%v: %w", image.GhostFile.File(uint64(h.ghost.ID)), err)
		}
	}
	g.Close()
	return nil
}

func (g *Ghosts) finish(h *haunt) error {
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return err
	}
	if st.Uid != h.ghost.UID || st.Gid != h.ghost.GID {
		if err := g.Kernel.Chown(h.fd, h.ghost.UID, h.ghost.GID); err != nil {
			return fmt.Errorf("give it to uid %d and gid %d: %w", h.ghost.UID, h.ghost.GID, err)
		}
	}
	link := fmt.Sprintf("/proc/self/fd/%d", h.fd)
	if err := h.chmod(link); err != nil {
		return err
	}
	if h.ghost.Atime == nil || h.ghost.Mtime == nil {
		return nil
	}
	times := []unix.Timespec{{Sec: h.ghost.Atime.Sec, Nsec: h.ghost.Atime.Nsec}, {Sec: h.ghost.Mtime.Sec, Nsec: h.ghost.Mtime.Nsec}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, link, times, 0); err != nil {
		return fmt.Errorf("give it its times: %w", err)
	}
	return nil
}

// chmod gives a ghost its mode, by a link to it: a fifo was opened as a name. It comes after the owner, whose change takes set-uid
// bits away. A symbolic link has no mode of its own.
func (h *haunt) chmod(link string) error {
	if h.is(unix.S_IFLNK) {
		return nil
	}
	mode := h.ghost.Mode &^ unix.S_IFMT
	if err := unix.Chmod(link, mode); err != nil {
		return fmt.Errorf("give it the mode %#o: %w", mode, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return err
	}
	if st.Mode != h.ghost.Mode {
		return fmt.Errorf("its mode was %#o, and the kernel has made it %#o: %w", h.ghost.Mode, st.Mode, unix.EPERM)
	}
	return nil
}

// Close gives the files up, and takes away a name that one of them has still.
func (g *Ghosts) Close() {
	for _, h := range g.order {
		if h.name != "" {
			_ = g.vanish(h)
		}
		if h.dir >= 0 {
			_ = unix.Close(h.dir)
		}
		for _, fd := range h.early {
			_ = unix.Close(fd) // of what was handed in, or did not come to be opened
		}
		if h.fd >= 0 {
			_ = unix.Close(h.fd)
		}
	}
	g.order, g.made = nil, nil
}
