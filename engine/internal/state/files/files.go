//go:build amd64

package files

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// Collect reads the descriptor table but for the descriptors in except, which are the engine's, and the paths of a
// process. What it cannot hold is refused all at once.
func Collect(k *linux.Kernel, pid int, dir proc.Dir, except map[int]bool, s *snapshot.Task) error {
	st, err := dir.Status()
	if err != nil {
		return err
	}
	s.Umask = st.Umask
	for _, l := range []struct {
		name string
		file *snapshot.File
	}{{"cwd", &s.Cwd}, {"root", &s.Root}, {"exe", &s.Exe}} {
		if *l.file, err = named(fmt.Sprintf("/proc/%d/%s", pid, l.name)); err != nil {
			return fmt.Errorf("process %d: %s: %w", pid, l.name, err)
		}
	}
	if s.Root.Path != "/" {
		return fmt.Errorf("process %d: %w: its root is %s (chroot)", pid, errors.ErrUnsupported, s.Root.Path)
	}
	numbers, err := dir.FDs()
	if err != nil {
		return err
	}
	var refused []error
	for _, n := range numbers {
		if except[n] {
			continue
		}
		fd, err := descriptor(k, pid, dir, n, s.Files)
		if err != nil {
			refused = append(refused, fmt.Errorf("process %d: descriptor %d: %w", pid, n, err))
			continue
		}
		s.Files = append(s.Files, fd)
	}
	return errors.Join(refused...)
}

func descriptor(k *linux.Kernel, pid int, dir proc.Dir, n int, before []snapshot.FD) (fd snapshot.FD, err error) {
	info, err := dir.FDInfo(n)
	if err != nil {
		return fd, err
	}
	if len(info.Locks) > 0 {
		return fd, fmt.Errorf("%w: it holds a file lock", errors.ErrUnsupported)
	}
	fd.Number, fd.CloseOnExec = n, info.Flags&unix.O_CLOEXEC != 0
	if fd.File, err = named(fmt.Sprintf("/proc/%d/fd/%d", pid, n)); err != nil {
		return fd, err
	}
	fd.File.Flags, fd.File.Pos = info.Flags&^unix.O_CLOEXEC, info.Pos
	fd.File.Description = len(before) + 1
	for i := range before {
		b := &before[i].File
		if b.Path != fd.File.Path || b.Pos != fd.File.Pos || b.Flags != fd.File.Flags {
			continue
		}
		same, err := k.Same(pid, pid, linux.SameFile, before[i].Number, n)
		if err != nil {
			return fd, err
		}
		if same {
			fd.File.Description = b.Description
			break
		}
	}
	return fd, nil
}

// Mapped returns the file of a mapping, to be opened so that the mapping can be made again.
func Mapped(pid int) func(proc.Mapping, proc.VMFlags) (*snapshot.File, error) {
	return func(m proc.Mapping, flags proc.VMFlags) (*snapshot.File, error) {
		f, err := named(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.Start, m.End))
		if err != nil {
			return nil, err
		}
		if m.Perm&proc.PermShared != 0 && flags&proc.VMMayWrite != 0 {
			f.Flags = unix.O_RDWR
		}
		return &f, nil
	}
}

// named follows a link of /proc and makes sure that the file still has the name that the link tells.
func named(link string) (f snapshot.File, err error) {
	path, err := os.Readlink(link)
	if err != nil {
		return f, err
	}
	var st, again unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return f, fmt.Errorf("stat %s: %w", path, err)
	}
	if err := savable(path, &st); err != nil {
		return f, err
	}
	if err := unix.Stat(path, &again); err != nil || again.Dev != st.Dev || again.Ino != st.Ino {
		return f, fmt.Errorf("%w: the file has no longer the name %s", errors.ErrUnsupported, path)
	}
	f.Path, f.Mode = path, st.Mode
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		f.Size = new(uint64(st.Size))
	}
	return f, nil
}

// savable refuses what is no regular file, directory or memory device.
func savable(path string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		if strings.HasPrefix(path, "/") {
			return nil
		}
	case unix.S_IFCHR:
		if unix.Major(st.Rdev) == 1 { // null, zero, full, random, urandom …
			switch unix.Minor(st.Rdev) {
			case 3, 5, 7, 8, 9:
				return nil
			}
		}
	}
	return fmt.Errorf("%w: it is %s", errors.ErrUnsupported, path)
}

// An Encoder numbers files and writes files.img.
type Encoder struct {
	w    *image.Writer
	ids  map[key]uint32
	next uint32
}

type key struct {
	pid, description int
	path             string
	flags            uint32
}

// NewEncoder starts files.img.
func NewEncoder(d image.Dir) (*Encoder, error) {
	w, err := image.Create(d, image.Files, 0)
	if err != nil {
		return nil, err
	}
	return &Encoder{w: w, ids: make(map[key]uint32)}, nil
}

// Close ends files.img.
func (e *Encoder) Close() error { return e.w.Close() }

// ID returns the number of a file of a process, and writes its entry when it is new. An error comes out at Close.
func (e *Encoder) ID(pid int, f *snapshot.File) uint32 {
	k := key{path: f.Path, flags: f.Flags}
	if f.Description != 0 {
		k = key{pid: pid, description: f.Description}
	}
	if id, ok := e.ids[k]; ok {
		return id
	}
	e.next++
	e.ids[k] = e.next
	reg := &entry.RegFile{ID: e.next, Flags: f.Flags, Pos: f.Pos, Name: f.Path, Mode: &f.Mode, Size: f.Size}
	_ = e.w.Put(&entry.File{Type: entry.FDTypeReg, ID: e.next, Reg: reg}) // Close tells
	return e.next
}

// Encode writes the descriptor table, under the number table, and the entry with the paths of a process.
func Encode(d image.Dir, e *Encoder, table uint64, s *snapshot.Task) error {
	w, err := image.Create(d, image.FDInfo, table)
	if err != nil {
		return err
	}
	for i := range s.Files {
		fd := &s.Files[i]
		var flags uint32
		if fd.CloseOnExec {
			flags = unix.FD_CLOEXEC
		}
		if err := w.Put(&entry.FDInfo{ID: e.ID(s.PID, &fd.File), Flags: flags, Type: entry.FDTypeReg, FD: uint32(fd.Number)}); err != nil {
			break // Close tells
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return image.WriteAll(d, image.FS, uint64(s.PID), &entry.FS{CwdID: e.ID(s.PID, &s.Cwd), RootID: e.ID(s.PID, &s.Root), Umask: &s.Umask})
}
