//go:build amd64

package fds

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect reads the tables, and makes the list of open files.
func Collect(t *collect.Tree) error {
	for p := range t.Alive() {
		if p.Table {
			if err := table(t, p.Holder(), p.Task.Table); err != nil {
				return err
			}
		}
		for _, th := range p.Threads {
			if th.Table {
				if err := table(t, th.Holder(), th.Snapshot.Table); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func table(t *collect.Tree, h collect.Holder, id snapshot.ObjectID) error {
	numbers, err := h.Dir.FDs()
	if err != nil {
		return err
	}
	table := &snapshot.Table{ID: id, Slots: make([]snapshot.Slot, len(numbers))}
	for i, fd := range numbers {
		if table.Slots[i], err = slot(t, h, fd); err != nil {
			return fmt.Errorf("%s: descriptor %d: %w", h.Where(), fd, err)
		}
	}
	t.Snapshot.Tables = append(t.Snapshot.Tables, table)
	return nil
}

func slot(t *collect.Tree, h collect.Holder, fd int) (snapshot.Slot, error) {
	f, isNew, closeOnExec, err := t.Open(h, fd)
	if err != nil {
		return snapshot.Slot{}, err
	}
	if isNew {
		if err := owner(t, f); err != nil {
			return snapshot.Slot{}, err
		}
		if len(f.Info.Locks) > 0 {
			t.Report.Unsupported(f.Where(), "it holds a lock (%v), which cannot be saved yet", f.Info.Locks[0].Type)
		}
	}
	return snapshot.Slot{FD: fd, File: f.ID, CloseOnExec: closeOnExec}, nil
}

// owner asks who gets SIGIO.
func owner(t *collect.Tree, f *collect.File) error {
	if f.Flags&unix.O_PATH != 0 {
		return nil
	}
	fd, err := f.Take()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	o, err := t.Kernel.FileOwner(fd)
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	if err != nil {
		return err
	}
	f.Owner = snapshot.Owner{Type: uint32(o.Type), PID: o.PID, Signal: uint32(o.Signal), UID: o.UID, EUID: o.EUID}
	return nil
}

// List writes the files that were seen into the snapshot, in the order of their numbers. It comes after all kinds of files.
func List(t *collect.Tree) error {
	t.RefuseUnclaimed()
	for _, f := range t.Files.All {
		t.Snapshot.Files = append(t.Snapshot.Files, f.File)
	}
	return nil
}
