//go:build amd64

package tty

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the terminal of a shell job: a pseudoterminal that is the controlling terminal of processes of the tree, and
// whose session is led from outside; opened by its own name or as /dev/tty. And it claims terminals that are external.
func Collect(t *collect.Tree) error {
	if !t.Outer && len(t.External) == 0 {
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
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil
	}
	external := slices.Contains(t.External, fmt.Sprintf("tty[%x:%x]", st.Rdev, st.Dev))
	terminal := terminals[st.Rdev]
	if terminal == nil {
		if terminal = whose(t, &st, external); terminal == nil {
			return nil
		}
		terminal.ID = uint32(len(terminals)) // a small number: CRIU has room for 2048
		if err := settings(f, terminal); err != nil {
			return err
		}
		terminals[st.Rdev] = terminal
		t.Snapshot.Terminals = append(t.Snapshot.Terminals, terminal)
	}
	if external {
		f.Object = &snapshot.TTY{Terminal: terminal.ID}
		return nil
	}
	node := t.Name(f)
	node.Object = &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: f.Link}, Mode: &st.Mode}
	f.Object = &snapshot.TTY{Terminal: terminal.ID, Node: node.ID}
	return nil
}

// whose returns what is known of a terminal, nil of one that is not to be claimed.
func whose(t *collect.Tree, st *unix.Stat_t, external bool) *snapshot.Terminal {
	terminal := &snapshot.Terminal{
		Device: uint32(st.Rdev), FSDevice: new(uint32(st.Dev)), UID: &st.Uid, GID: &st.Gid,
	}
	if external {
		terminal.Kind = snapshot.ExternalTTY
		return terminal
	}
	if !t.Outer {
		return nil
	}
	var user *collect.Process
	// Majors of the ends of pseudoterminals that programs use; the other ends are /dev/ptmx.
	switch m := unix.Major(st.Rdev); {
	case st.Rdev == unix.Mkdev(5, 0): // /dev/tty, the controlling terminal of whoever opens it
		terminal.Kind = snapshot.ControllingTTY
		user = outside(t)
	case m >= 136 && m <= 143:
		terminal.Kind, terminal.Index = snapshot.PTY, new(unix.Minor(st.Rdev))
		user = controlled(t, st.Rdev)
	}
	if user == nil {
		return nil
	}
	terminal.Session, terminal.Foreground = user.Stat.Session, user.Stat.TPGID
	return terminal
}

// outside returns a process whose controlling terminal is that of a session led from outside of the tree.
func outside(t *collect.Tree) *collect.Process {
	for p := range t.Alive() {
		if p.Stat.TTYNr != 0 {
			return controlled(t, uint64(uint32(p.Stat.TTYNr)))
		}
	}
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
	return &snapshot.Termios{Iflag: m.Iflag, Oflag: m.Oflag, Cflag: m.Cflag, Lflag: m.Lflag, Line: uint32(m.Line), CC: pack([controlChars]byte(m.Cc[:]))}
}
