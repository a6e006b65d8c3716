//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"os"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/creds"
	"stasis.example/engine/internal/state/files"
	"stasis.example/engine/internal/state/mem"
	"stasis.example/engine/internal/state/signals"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/state/timers"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/proc"
)

// readTask reads the images of a single process. Everything is decoded, and everything refused, here.
func readTask(d image.Dir) (*snapshot.Task, error) {
	inventory, err := image.ReadInventory(d)
	if err != nil {
		return nil, err
	}
	if inventory.ImgVersion < 1 || inventory.ImgVersion > 2 {
		return nil, fmt.Errorf("images of version %d: %w", inventory.ImgVersion, errors.ErrUnsupported)
	}
	tree, err := image.ReadPSTree(d)
	if err != nil {
		return nil, err
	}
	if len(tree) != 1 {
		return nil, fmt.Errorf("images of %d processes: %w: restoring more than one", len(tree), errors.ErrUnsupported)
	}
	root := &tree[0]
	s := &snapshot.Task{PID: int(root.PID), PGID: int(root.PGID), SID: int(root.SID)}
	if s.SID != s.PID {
		return nil, fmt.Errorf("process %d: %w: it leads no session of its own", s.PID, errors.ErrUnsupported)
	}
	if len(root.Threads) == 0 || root.Threads[0] != root.PID {
		return nil, fmt.Errorf("process %d: its first thread is not the leader: %v", s.PID, root.Threads)
	}
	if err := readCores(d, root, s); err != nil {
		return nil, err
	}
	table, err := files.ReadTable(d)
	if err != nil {
		return nil, err
	}
	var ids entry.TaskKobjIDs
	if err := image.ReadOne(d, image.IDs, uint64(s.PID), &ids); err != nil {
		return nil, err
	}
	if err := files.Decode(d, table, &ids, s); err != nil {
		return nil, err
	}
	var mm entry.MM
	if err := image.ReadOne(d, image.MM, uint64(s.PID), &mm); err != nil {
		return nil, err
	}
	if s.Exe, err = table.File(mm.ExeFileID); err != nil {
		return nil, err
	}
	return s, mem.Decode(&mm, table.File, &s.MM)
}

func readCores(d image.Dir, root *entry.PSTree, s *snapshot.Task) error {
	own, err := proc.New(os.DirFS("/proc")).Self().Status()
	if err != nil {
		return err
	}
	seen := make(map[uint32]bool)
	s.Threads = make([]snapshot.Thread, len(root.Threads))
	for i, tid := range root.Threads {
		if seen[tid] {
			return fmt.Errorf("process %d: thread %d is there twice", s.PID, tid)
		}
		seen[tid] = true
		th := &s.Threads[i]
		var c entry.Core
		if err := image.ReadOne(d, image.Core, uint64(tid), &c); err != nil {
			return err
		}
		if err := threads.Decode(int(tid), &c, th); err != nil {
			return err
		}
		signals.DecodeThread(&c, th)
		if err := errors.Join(creds.DecodeThread(c.ThreadCore, th), creds.Check(own, th)); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if c.TC == nil {
			return fmt.Errorf("core of process %d: nothing about the process", s.PID)
		}
		if th.Comm == "" {
			th.Comm = c.TC.Comm
		}
		if s.Stopped = c.TC.TaskState == entry.TaskStopped; !s.Stopped && c.TC.TaskState != entry.TaskAlive {
			return fmt.Errorf("process %d: %w: it is in state %d", s.PID, errors.ErrUnsupported, c.TC.TaskState)
		}
		if err := errors.Join(signals.Decode(c.TC, s), timers.Decode(c.TC, s), creds.Decode(c.TC, s)); err != nil {
			return err
		}
	}
	return nil
}

// seed says what a process of ours is to be copied into.
func seed(s *snapshot.Task) remote.Seed {
	seed := remote.Seed{Threads: len(s.Threads), FDs: 1}
	for _, v := range s.MM.VMAs {
		seed.Avoid = append(seed.Avoid, remote.Mapping{Start: v.Start, End: v.End})
	}
	for _, fd := range s.Files {
		seed.FDs = max(seed.FDs, fd.Number+2)
	}
	return seed
}
