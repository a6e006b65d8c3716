package images

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"stasis.example/image"
	"stasis.example/image/entry"
)

// WriteProcess makes the images of one process, by its place in the set, and forgets what is in them.
func (s *Set) WriteProcess(d image.Dir, i int) error {
	p := s.Processes[i]
	err := p.write(d)
	*p = Process{Entry: p.Entry}
	return err
}

// Write makes the images of a set, but for pages and ghosts, which are made while the tree stands still. The inventory comes last: a
// directory without one is no dump.
func (s *Set) Write(d image.Dir) error {
	if err := s.WriteTree(d); err != nil {
		return err
	}
	if err := s.writeProcesses(d); err != nil {
		return err
	}
	return s.WriteInventory(d)
}

// WriteInventory makes the last image.
func (s *Set) WriteInventory(d image.Dir) error {
	return image.WriteAll(d, image.Inventory, 0, &s.Inventory)
}

// WriteTree makes the images of what is of the tree as a whole, and of what its processes may share.
func (s *Set) WriteTree(d image.Dir) error {
	if err := s.clear(d); err != nil {
		return err
	}
	tree := make([]entry.Message, len(s.Processes))
	for i, p := range s.Processes {
		tree[i] = &p.Entry
	}
	if err := image.WriteAll(d, image.PSTree, 0, tree...); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(s.FDInfo)) {
		if err := writeList(d, image.FDInfo, uint64(id), s.FDInfo[id]); err != nil {
			return err
		}
	}
	if err := writeList(d, image.Files, 0, s.Files); err != nil {
		return err
	}
	if len(s.Remaps) > 0 {
		if err := writeList(d, image.RemapFilePath, 0, s.Remaps); err != nil {
			return err
		}
	}
	if err := writePipes(d, image.PipesData, s.Pipes); err != nil {
		return err
	}
	if err := writePipes(d, image.FIFOData, s.FIFOs); err != nil {
		return err
	}
	if len(s.Terminals) > 0 {
		if err := writeList(d, image.TTYInfo, 0, s.Terminals); err != nil {
			return err
		}
	}
	if len(s.Typed) > 0 {
		if err := writeList(d, image.TTYData, 0, s.Typed); err != nil {
			return err
		}
	}
	if s.TimeNS != nil {
		return image.WriteAll(d, image.TimeNS, 0, s.TimeNS)
	}
	return nil
}

// clear removes images of an earlier dump that say something of the whole tree, and that this one may not write: they would be
// taken for its own. Those of processes are only read if the tree has them.
func (s *Set) clear(d image.Dir) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	ghosts := s.ghostIDs()
	for _, name := range names {
		t, id, ok := image.ParseFile(name)
		switch {
		case !ok:
			continue
		case t == image.GhostFile:
			if ghosts[uint32(id)] {
				continue // is written already
			}
		case t == image.RemapFilePath, t == image.PipesData, t == image.FIFOData, t == image.TTYInfo, t == image.TTYData, t == image.TimeNS, t == image.Seccomp:
		case refused[t] == "":
			continue
		}
		if err := d.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// writeProcesses writes the images of the processes: of many on several threads, as it takes a file system its time to make
// files.
func (s *Set) writeProcesses(d image.Dir) error {
	const worthIt, threads = 8, 2
	if len(s.Processes) < worthIt {
		for _, p := range s.Processes {
			if err := p.write(d); err != nil {
				return err
			}
		}
		return nil
	}
	var group sync.WaitGroup
	var next atomic.Int64
	var errs [threads]error
	for i := range errs {
		group.Go(func() {
			for n := next.Add(1); n <= int64(len(s.Processes)) && errs[i] == nil; n = next.Add(1) {
				errs[i] = s.Processes[n-1].write(d)
			}
		})
	}
	group.Wait()
	return errors.Join(errs[:]...)
}

func (p *Process) write(d image.Dir) error {
	pid := uint64(p.Entry.PID)
	for i, core := range p.Cores {
		tid := pid
		if i > 0 {
			tid = uint64(p.Entry.Threads[i])
		}
		if err := image.WriteAll(d, image.Core, tid, core); err != nil {
			return err
		}
	}
	if p.IDs != nil {
		if err := image.WriteAll(d, image.IDs, pid, p.IDs); err != nil {
			return err
		}
	}
	if p.MM != nil {
		if err := image.WriteAll(d, image.MM, pid, p.MM); err != nil {
			return err
		}
	}
	if p.FS != nil {
		if err := image.WriteAll(d, image.FS, pid, p.FS); err != nil {
			return err
		}
	}
	for _, tid := range slices.Sorted(maps.Keys(p.ThreadFS)) {
		if err := image.WriteAll(d, image.FS, uint64(tid), p.ThreadFS[tid]); err != nil {
			return err
		}
	}
	return nil
}

// writeList writes the entries of a slice, one after the other.
func writeList[T any, P message[T]](d image.Dir, t image.Type, id uint64, entries []T) error {
	w, err := image.Create(d, t, id)
	if err != nil {
		return err
	}
	for i := range entries {
		if w.Put(P(&entries[i])) != nil {
			break // Close returns it
		}
	}
	return w.Close()
}

func writePipes(d image.Dir, t image.Type, pipes []PipeData) error {
	if len(pipes) == 0 {
		return nil
	}
	w, err := image.Create(d, t, 0)
	if err != nil {
		return err
	}
	for i := range pipes {
		if w.Put(&pipes[i].Entry) != nil {
			break
		}
		if _, err := w.Write(pipes[i].Data); err != nil {
			break
		}
	}
	return w.Close()
}
