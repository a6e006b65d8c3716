//go:build amd64

package files

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// A Table has the entries of files.img by number.
type Table map[uint32]*entry.File

// ReadTable reads files.img.
func ReadTable(d image.Dir) (Table, error) {
	all, err := image.ReadAll[entry.File](d, image.Files, 0)
	if err != nil {
		return nil, err
	}
	t := make(Table, len(all))
	for i := range all {
		t[all[i].ID] = &all[i]
	}
	return t, nil
}

// File returns a file by its number, and refuses what is no regular file.
func (t Table) File(id uint32) (f snapshot.File, err error) {
	e := t[id]
	if e == nil {
		return f, fmt.Errorf("%s: no file %d", image.Files.File(0), id)
	}
	if e.Reg == nil {
		return f, fmt.Errorf("file %d: %w: it is of type %v", id, errors.ErrUnsupported, e.Type)
	}
	f = snapshot.File{Path: e.Reg.Name, Flags: e.Reg.Flags, Pos: e.Reg.Pos, Description: int(id)}
	if e.Reg.Mode != nil {
		f.Mode = *e.Reg.Mode
	}
	f.Size = e.Reg.Size
	if !path.IsAbs(f.Path) { // CRIU leaves the slash away in some
		f.Path = "/" + f.Path
	}
	return f, nil
}

// Decode reads the descriptor table and the paths of a process.
func Decode(d image.Dir, t Table, ids *entry.TaskKobjIDs, s *snapshot.Task) error {
	fds, err := image.ReadAll[entry.FDInfo](d, image.FDInfo, uint64(ids.FilesID))
	if err != nil {
		return err
	}
	var refused []error
	for _, e := range fds {
		f, err := t.File(e.ID)
		if err != nil {
			refused = append(refused, fmt.Errorf("descriptor %d: %w", e.FD, err))
			continue
		}
		s.Files = append(s.Files, snapshot.FD{Number: int(e.FD), CloseOnExec: e.Flags&unix.FD_CLOEXEC != 0, File: f})
	}
	slices.SortFunc(s.Files, func(a, b snapshot.FD) int { return a.Number - b.Number })
	if err := errors.Join(refused...); err != nil {
		return err
	}
	var fs entry.FS
	if err := image.ReadOne(d, image.FS, uint64(s.PID), &fs); err != nil {
		return err
	}
	if fs.Umask != nil {
		s.Umask = *fs.Umask
	}
	if s.Cwd, err = t.File(fs.CwdID); err != nil {
		return err
	}
	if s.Root, err = t.File(fs.RootID); err != nil {
		return err
	}
	if s.Root.Path != "/" {
		return fmt.Errorf("process %d: %w: its root is %s (chroot)", s.PID, errors.ErrUnsupported, s.Root.Path)
	}
	return nil
}

// Open opens a file as it was open, and makes sure that it is still of the kind and the size that it was. It never makes
// or cuts a file.
func Open(f *snapshot.File) (int, error) {
	const never = unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC
	fd, err := unix.Open(f.Path, int(f.Flags)&^never|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", f.Path, err)
	}
	if err := same(fd, f); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// ErrChanged is a file that is no longer what it was when the process was dumped.
var ErrChanged = errors.New("the file has changed")

func same(fd int, f *snapshot.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", f.Path, err)
	}
	switch {
	case f.Mode != 0 && f.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT:
		return fmt.Errorf("%w: %s is another kind of file (mode %o, was %o)", ErrChanged, f.Path, st.Mode, f.Mode)
	case f.Size != nil && st.Mode&unix.S_IFMT == unix.S_IFREG && uint64(st.Size) != *f.Size:
		return fmt.Errorf("%w: %s has %d bytes, had %d", ErrChanged, f.Path, st.Size, *f.Size)
	}
	// Opened without waiting for anything; that is not the process's wish.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, int(f.Flags)); err != nil {
		return fmt.Errorf("flags of %s: %w", f.Path, err)
	}
	if f.Pos != 0 && st.Mode&unix.S_IFMT != unix.S_IFCHR {
		if _, err := unix.Seek(fd, int64(f.Pos), unix.SEEK_SET); err != nil {
			return fmt.Errorf("seek in %s: %w", f.Path, err)
		}
	}
	return nil
}

// With opens a file, gives it to the process, and calls use with its number there.
func With(p *remote.Process, f *snapshot.File, use func(fd uint64) error) error {
	fd, err := Open(f)
	if err != nil {
		return err
	}
	given, err := p.GiveFile(fd)
	_ = unix.Close(fd)
	if err != nil {
		return err
	}
	return errors.Join(use(given), p.TakeBack(given))
}

// Apply gives the process its descriptors and paths. The first descriptor of an open file description is opened, the
// others are copies of it. Numbers ascend, so that a file always comes in at or below the number that it is to have.
func Apply(p *remote.Process, s *snapshot.Task) error {
	first := make(map[int]int)
	for i := range s.Files {
		fd := &s.Files[i]
		var flags uint64
		if fd.CloseOnExec {
			flags = unix.O_CLOEXEC
		}
		a := p.NewArena()
		if old, ok := first[fd.File.Description]; ok {
			a.Call(unix.SYS_DUP3, uint64(old), uint64(fd.Number), flags)
			if err := a.Run(p.Threads[0]); err != nil {
				return err
			}
			continue
		}
		first[fd.File.Description] = fd.Number
		if err := give(p, fd, flags); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd.Number, err)
		}
	}
	cwd := s.Cwd
	cwd.Flags, cwd.Pos = unix.O_PATH|unix.O_DIRECTORY, 0
	fd, err := unix.Open(cwd.Path, int(cwd.Flags)|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("working directory %s: %w", cwd.Path, err)
	}
	defer unix.Close(fd)
	given, err := p.GiveFile(fd)
	if err != nil {
		return err
	}
	a := p.NewArena()
	a.Call(unix.SYS_FCHDIR, given)
	a.Call(unix.SYS_UMASK, uint64(s.Umask))
	return errors.Join(a.Run(p.Threads[0]), p.TakeBack(given))
}

func give(p *remote.Process, fd *snapshot.FD, flags uint64) error {
	ours, err := Open(&fd.File)
	if err != nil {
		return err
	}
	given, err := p.GiveFile(ours)
	_ = unix.Close(ours)
	if err != nil {
		return err
	}
	a := p.NewArena()
	if given != uint64(fd.Number) {
		a.Call(unix.SYS_DUP3, given, uint64(fd.Number), flags)
		return errors.Join(a.Run(p.Threads[0]), p.TakeBack(given))
	}
	if flags == 0 {
		a.Call(unix.SYS_FCNTL, given, unix.F_SETFD, 0)
	}
	return errors.Join(a.Run(p.Threads[0]), p.KeepGiven())
}
