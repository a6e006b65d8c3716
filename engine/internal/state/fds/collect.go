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
	table := &snapshot.Table{ID: id}
	err := t.Open(h, func(fd int, f *collect.File, isNew, closeOnExec bool) error {
		if isNew {
			if err := owner(t, f); err != nil {
				return fmt.Errorf("descriptor %d: %w", fd, err)
			}
			if len(f.Info.Locks) > 0 {
				t.Report.Unsupported(f.Where(), "it holds a lock (%v), which cannot be saved yet", f.Info.Locks[0].Type)
			}
		}
		table.Slots = append(table.Slots, snapshot.Slot{FD: fd, File: f.ID, CloseOnExec: closeOnExec})
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", h.Where(), err)
	}
	t.Snapshot.Tables = append(t.Snapshot.Tables, table)
	return nil
}

// owner asks who gets SIGIO.
func owner(t *collect.Tree, f *collect.File) error {
	if f.Flags&unix.O_PATH != 0 {
		return nil
	}
	o, err := t.Owner(f)
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
