//go:build amd64

package tty

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the terminal of a shell job: a pseudoterminal that is the controlling terminal of processes of the tree, and
// whose session is led from outside.
func Collect(t *collect.Tree) error {
	if !t.Outer {
		return nil
	}
	terminals := make(map[uint64]*snapshot.Terminal) // by device
	for _, f := range t.Files.All {
		if f.Object != nil || f.FD < 0 || f.Flags&unix.O_PATH != 0 {
			continue
		}
		if err := claim(t, f, terminals); err != nil {
			return fmt.Errorf("%s: %w", f.Where(), err)
		}
	}
	return nil
}

func claim(t *collect.Tree, f *collect.File, terminals map[uint64]*snapshot.Terminal) error {
	var st unix.Stat_t
	if err := unix.Stat(f.Path, &st); err != nil {
		return err
	}
	// Majors of the ends of pseudoterminals that programs use; the other ends are /dev/ptmx.
	if m := unix.Major(st.Rdev); st.Mode&unix.S_IFMT != unix.S_IFCHR || m < 136 || m > 143 {
		return nil
	}
	user := controlled(t, st.Rdev)
	if user == nil {
		return nil
	}
	terminal := terminals[st.Rdev]
	if terminal == nil {
		terminal = &snapshot.Terminal{
			ID: unix.Minor(st.Rdev), Kind: snapshot.PTY, Device: uint32(st.Rdev), FSDevice: new(uint32(st.Dev)),
			Session: user.Stat.Session, Foreground: user.Stat.TPGID, Index: new(unix.Minor(st.Rdev)), UID: &st.Uid, GID: &st.Gid,
		}
		if err := settings(f, terminal); err != nil {
			return err
		}
		terminals[st.Rdev] = terminal
		t.Snapshot.Terminals = append(t.Snapshot.Terminals, terminal)
	}
	node := t.Name(f)
	node.Object = &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: f.Link}, Mode: &st.Mode}
	f.Object = &snapshot.TTY{Terminal: terminal.ID, Node: node.ID}
	return nil
}

// controlled returns a process whose controlling terminal a device is, if its session is led from outside of the tree.
func controlled(t *collect.Tree, device uint64) *collect.Process {
	var user *collect.Process
	for p := range t.Alive() {
		if uint64(uint32(p.Stat.TTYNr)) != device {
			continue
		}
		if p.Stat.Session == p.PID {
			return nil
		}
		user = p
	}
	return user
}

// settings reads the settings of a terminal.
func settings(f *collect.File, terminal *snapshot.Terminal) error {
	fd, err := f.Take()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, s := range []struct {
		name    string
		request uint
		to      **snapshot.Termios
	}{{"TCGETS", unix.TCGETS, &terminal.Settings}, {"TIOCGLCKTRMIOS", unix.TIOCGLCKTRMIOS, &terminal.Lock}} {
		modes, err := unix.IoctlGetTermios(fd, s.request)
		if err != nil {
			return fmt.Errorf("ioctl(%s): %w", s.name, err)
		}
		*s.to = termios(modes)
	}
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return fmt.Errorf("ioctl(TIOCGWINSZ): %w", err)
	}
	terminal.Window = &snapshot.Window{Rows: uint32(size.Row), Cols: uint32(size.Col), XPixel: uint32(size.Xpixel), YPixel: uint32(size.Ypixel)}
	exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL)
	if err != nil {
		return fmt.Errorf("ioctl(TIOCGEXCL): %w", err)
	}
	terminal.Exclusive = exclusive != 0
	return nil
}

func termios(m *unix.Termios) *snapshot.Termios {
	s := &snapshot.Termios{Iflag: m.Iflag, Oflag: m.Oflag, Cflag: m.Cflag, Lflag: m.Lflag, Line: uint32(m.Line)}
	for _, c := range m.Cc {
		s.CC = append(s.CC, uint32(c))
	}
	return s
}
