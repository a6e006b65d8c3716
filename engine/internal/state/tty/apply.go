//go:build amd64

package tty

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Own returns a descriptor of this program that is its terminal, the standard ones first, -1 for none. It is the caller's to
// close if it is not below 3.
func Own() int {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return fd
		}
	}
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// Open opens the terminal of whoever restores once more, as a file of its own with the flags given. As /dev/tty it is whichever
// terminal the reader's session has.
func Open(own int, kind snapshot.TerminalKind, f *snapshot.File) (*apply.File, error) {
	name := fmt.Sprintf("/proc/self/fd/%d", own)
	if kind == snapshot.ControllingTTY {
		name = "/dev/tty"
	} else if own < 0 {
		return nil, fmt.Errorf("the terminal of a shell job: whoever restores has no terminal: %w", unix.ENOTTY)
	}
	how := int(f.Flags&(unix.O_ACCMODE|unix.O_APPEND)) | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Open(name, how, 0)
	if err != nil {
		return nil, fmt.Errorf("open the terminal of whoever restores: %w", err)
	}
	if err := apply.SetFlags(fd, f.Flags); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return apply.NewFile(fd), nil
}

// Apply gives the terminal of a shell job its settings, and makes the job the one that may read from it, as a shell does that
// brings a job to the foreground. It comes when all process groups are there, and before the credentials. SIGTTOU, which would
// stop who does that from the background, is blocked in processes that are being made.
func Apply(t *apply.Task) error {
	if t.Table == nil {
		return nil
	}
	tree := t.Tree.Snapshot
	for _, terminal := range tree.Terminals {
		if terminal.Kind != snapshot.PTY {
			continue // somebody else's, or the same by another name
		}
		user, fd := userOf(tree, terminal.ID)
		if user != t.PID.Num() {
			continue
		}
		what := fmt.Sprintf("terminal %d", terminal.ID)
		if terminal.Lock != nil && locked(terminal.Lock) {
			t.Batch.Do(what+": TIOCSLCKTRMIOS", unix.SYS_IOCTL, apply.Num(fd), apply.Num(unix.TIOCSLCKTRMIOS), apply.Bytes(kernelTermios(terminal.Lock)))
		}
		if terminal.Settings != nil {
			t.Batch.Do(what+": TCSETS", unix.SYS_IOCTL, apply.Num(fd), apply.Num(unix.TCSETS), apply.Bytes(kernelTermios(terminal.Settings)))
		}
		if w := terminal.Window; w != nil {
			size := binary.LittleEndian.AppendUint64(nil, uint64(uint16(w.Rows))|uint64(uint16(w.Cols))<<16|uint64(uint16(w.XPixel))<<32|uint64(uint16(w.YPixel))<<48)
			t.Batch.Do(what+": TIOCSWINSZ", unix.SYS_IOCTL, apply.Num(fd), apply.Num(unix.TIOCSWINSZ), apply.Bytes(size))
		}
		if terminal.Exclusive {
			t.Batch.Do(what+": TIOCEXCL", unix.SYS_IOCTL, apply.Num(fd), apply.Num(unix.TIOCEXCL), apply.Num(0))
		}
		if group := foreground(tree, terminal); group != 0 {
			t.Batch.Try(what+": TIOCSPGRP", func(_ uint64, err error) error {
				if errors.Is(err, unix.ENOTTY) {
					t.Tree.Note("the terminal is not that of the session: process group %d is not brought to its foreground", group)
					return nil
				}
				return err
			}, unix.SYS_IOCTL, apply.Num(fd), apply.Num(unix.TIOCSPGRP), apply.Words32(uint32(group)))
		}
	}
	return nil
}

// userOf finds a process of the root's session that has a terminal open, and its number.
func userOf(tree *snapshot.Tree, terminal uint32) (pid, fd int) {
	open := make(map[snapshot.FileID]bool)
	for _, f := range tree.Files {
		if o, ok := f.Object.(*snapshot.TTY); ok && o.Terminal == terminal {
			open[f.ID] = true
		}
	}
	for _, table := range tree.Tables {
		for _, s := range table.Slots {
			if !open[s.File] {
				continue
			}
			for _, task := range tree.Tasks {
				if task.Table == table.ID && task.Session == tree.Root().Session {
					return task.PID.Num(), s.FD
				}
			}
		}
	}
	return 0, -1
}

// foreground returns the process group that is to be in the foreground: the one that was, if it is the tree's, else the root's
// own, 0 for none.
func foreground(tree *snapshot.Tree, terminal *snapshot.Terminal) int {
	root := tree.Root()
	for _, task := range tree.Tasks {
		if terminal.Foreground != 0 && task.Group == terminal.Foreground && task.State != snapshot.Dead && leads(tree, task.Group) {
			return task.Group
		}
	}
	if root.Group == root.PID.Num() {
		return root.Group
	}
	return 0
}

// leads tells whether the leader of a process group is in the tree: a group that has another one is whoever restores' own.
func leads(tree *snapshot.Tree, group int) bool {
	for _, task := range tree.Tasks {
		if task.PID.Num() == group {
			return true
		}
	}
	return false
}

func locked(lock *snapshot.Termios) bool {
	return lock.Iflag|lock.Oflag|lock.Cflag|lock.Lflag|lock.Line != 0 || unpack(lock.CC) != [controlChars]byte{}
}

// kernelTermios are settings as TCSETS takes them.
func kernelTermios(s *snapshot.Termios) []byte {
	b := binary.LittleEndian.AppendUint32(nil, s.Iflag)
	b = binary.LittleEndian.AppendUint32(b, s.Oflag)
	b = binary.LittleEndian.AppendUint32(b, s.Cflag)
	b = binary.LittleEndian.AppendUint32(b, s.Lflag)
	b = append(b, byte(s.Line))
	chars := unpack(s.CC)
	return append(b, chars[:]...)
}
