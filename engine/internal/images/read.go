package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"stasis.example/image"
	"stasis.example/image/entry"
)

// limits of what is read into memory, far above what any kernel has.
const (
	maxProcesses = 1 << 20
	maxThreads   = 1 << 20 // in all
	maxFiles     = 1 << 22
	maxSlots     = 1 << 22 // in one table
	maxPipeBytes = 1 << 30 // in all pipes; F_SETPIPE_SZ takes at most 2 GiB for one
)

// Read reads the images of a directory, all but the pages and what is in ghosts. What is wrong goes to the report; the Set has what could be read,
// with entries that are as they must be or are missing: a process whose core cannot be read has an empty one.
func Read(d image.Dir, r *Report) *Set {
	d = untilStopped{d, r}
	s := &Set{FDInfo: make(map[uint32][]entry.FDInfo)}
	inv, err := image.ReadInventory(d)
	if err != nil {
		r.Failed(image.Inventory.File(0), err)
	} else {
		s.Inventory = *inv
	}
	s.readProcesses(d, r)
	s.readFiles(d, r)
	s.readGhosts(d, r)
	s.Pipes = readPipes(d, image.PipesData, r)
	s.FIFOs = readPipes(d, image.FIFOData, r)
	s.Terminals, _ = optional[entry.TTYInfo](d, image.TTYInfo, 0, maxFiles, r)
	s.Typed, _ = optional[entry.TTYData](d, image.TTYData, 0, maxFiles, r)
	if clocks, ok := optional[entry.TimeNS](d, image.TimeNS, s.TimeNSID(), 1, r); ok && len(clocks) > 0 {
		s.TimeNS = &clocks[0]
	}
	s.refuseOthers(d, r)
	return s
}

// message is a pointer to an entry.
type message[T any] interface {
	*T
	entry.Message
}

// list reads at most limit entries. It stops at the first that cannot be read. Where there are many they are counted first: a list that
// grows while it is read takes several times the room.
func list[T any, P message[T]](d image.Dir, t image.Type, id uint64, limit int, report *Report) ([]T, error) {
	r, err := image.Open(d, t, id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	const many = 64
	var all []T
	for {
		if report.Stopped() {
			return all, nil
		}
		n := len(all)
		if n == many {
			all = slices.Grow(all, max(count(d, t, id, limit, report)-n, 0)+1) // the last is the one that is not there
		}
		all = append(all, *new(T))
		err := r.Next(P(&all[n]))
		if err == nil && n == limit {
			err = fmt.Errorf("more than %d entries: %w", limit, image.ErrLimit)
		}
		if err != nil {
			all = all[:n]
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return all, err
		}
	}
}

// count returns how many entries an image has, as far as they can be read, and one more than the limit at most.
func count(d image.Dir, t image.Type, id uint64, limit int, report *Report) int {
	r, err := image.Open(d, t, id)
	if err != nil {
		return 0
	}
	defer r.Close()
	n := 0
	for n <= limit && !report.Stopped() && r.Skip() == nil {
		n++
	}
	return n
}

// optional reads an image that a dump need not have, and reports whether it has.
func optional[T any, P message[T]](d image.Dir, t image.Type, id uint64, limit int, r *Report) ([]T, bool) {
	all, err := list[T, P](d, t, id, limit, r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	if err != nil {
		r.Failed(t.File(id), err)
	}
	return all, true
}

// one reads an image with one entry that must be there; nil where it cannot be read.
func one[T any, P message[T]](d image.Dir, t image.Type, id uint64, r *Report) *T {
	var m T
	if err := image.ReadOne(d, t, id, P(&m)); err != nil {
		r.missing(t.File(id), err)
		return nil
	}
	return &m
}

// missing reports an image that is needed.
func (r *Report) missing(name string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		r.add(&Problem{name, "the image is missing", err})
		return
	}
	r.Failed(name, err)
}

func (s *Set) readProcesses(d image.Dir, r *Report) {
	tree, err := image.ReadPSTree(d)
	if err != nil {
		r.missing(image.PSTree.File(0), err)
		return
	}
	if len(tree) > maxProcesses {
		r.Damaged(image.PSTree.File(0), "%d processes, at most %d are taken", len(tree), maxProcesses)
		return
	}
	threads := 0
	var actions []entry.SA
	for _, e := range tree {
		if r.Stopped() {
			return
		}
		p := &Process{Entry: e}
		s.Processes = append(s.Processes, p)
		core := s.core(d, e.PID, r)
		shareActions(&actions, core.TC)
		p.Cores = append(p.Cores, core)
		if core.TC == nil {
			// Told once, by the package that decodes the tree; without it nothing else can be said.
			continue
		}
		if p.Dead() {
			continue
		}
		if threads += len(e.Threads); threads > maxThreads {
			r.Damaged(image.PSTree.File(0), "more than %d threads", maxThreads)
			return
		}
		for i, tid := range e.Threads {
			if i > 0 && !r.Stopped() {
				p.Cores = append(p.Cores, s.core(d, tid, r))
			}
		}
		p.IDs = one[entry.TaskKobjIDs](d, image.IDs, uint64(e.PID), r)
	}
	s.readShared(d, r)
}

func (s *Set) core(d image.Dir, tid uint32, r *Report) *entry.Core {
	if core := one[entry.Core](d, image.Core, uint64(tid), r); core != nil {
		return core
	}
	return &entry.Core{}
}

// shareActions has a process have the signal handlers of the one before, where they are the same: of those that were forked they are a
// good part of what is read.
func shareActions(last *[]entry.SA, tc *entry.TaskCore) {
	if tc == nil {
		return
	}
	same := func(a, b entry.SA) bool {
		return a.Sigaction == b.Sigaction && a.Flags == b.Flags && a.Restorer == b.Restorer && a.Mask == b.Mask &&
			a.GetCompatSigaction() == b.GetCompatSigaction() && (a.CompatSigaction == nil) == (b.CompatSigaction == nil) &&
			a.MaskExtended == nil && b.MaskExtended == nil && len(a.Unknown) == 0 && len(b.Unknown) == 0
	}
	if slices.EqualFunc(*last, tc.Sigactions, same) {
		tc.Sigactions = *last
	}
	*last = tc.Sigactions
}

// readShared reads what processes may share. It is in the images of the first process that has it.
func (s *Set) readShared(d image.Dir, r *Report) {
	mms, fss := make(map[uint32]bool), make(map[uint32]bool)
	for _, p := range s.Processes {
		if r.Stopped() {
			return
		}
		if p.IDs == nil {
			continue
		}
		id := uint64(p.Entry.PID)
		if !mms[p.IDs.VMID] {
			mms[p.IDs.VMID] = true
			p.MM = one[entry.MM](d, image.MM, id, r)
		} else {
			r.absent(d, image.MM, id, "memory")
			r.absent(d, image.Pagemap, id, "memory")
		}
		if !fss[p.IDs.FSID] {
			fss[p.IDs.FSID] = true
			p.FS = one[entry.FS](d, image.FS, id, r)
		} else {
			r.absent(d, image.FS, id, "working directory")
		}
		s.readTable(d, p.IDs.FilesID, r)
		for i, ids := range p.Apart() {
			s.readTable(d, ids.FilesID, r)
			if tid := p.Entry.Threads[i]; !fss[ids.FSID] {
				fss[ids.FSID] = true
				if p.ThreadFS == nil {
					p.ThreadFS = make(map[uint32]*entry.FS)
				}
				p.ThreadFS[tid] = one[entry.FS](d, image.FS, uint64(tid), r)
			}
		}
	}
}

// absent reports an image of what a process is said to share with one before it: one of the two is wrong.
func (r *Report) absent(d image.Dir, t image.Type, id uint64, what string) {
	m, err := image.Open(d, t, id)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		_ = m.Close()
	}
	r.Damaged(t.File(id), "process %d is said to share its %s with another process, and has its own", id, what)
}

func (s *Set) readTable(d image.Dir, id uint32, r *Report) {
	if _, ok := s.FDInfo[id]; ok {
		return
	}
	slots, err := list[entry.FDInfo](d, image.FDInfo, uint64(id), maxSlots, r)
	if err != nil {
		r.missing(image.FDInfo.File(uint64(id)), err)
	}
	s.FDInfo[id] = slots
}

func (s *Set) readFiles(d image.Dir, r *Report) {
	files, err := list[entry.File](d, image.Files, 0, maxFiles, r)
	if err != nil {
		r.missing(image.Files.File(0), err)
	}
	s.Files = files
	s.byID = make(map[uint32]*entry.File, len(files))
	for i := range files {
		s.byID[files[i].ID] = &files[i]
	}
}

func readPipes(d image.Dir, t image.Type, report *Report) []PipeData {
	r, err := image.Open(d, t, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		report.Failed(t.File(0), err)
		return nil
	}
	defer r.Close()
	var all []PipeData
	total := int64(0)
	for !report.Stopped() {
		var p PipeData
		err := r.Next(&p.Entry)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err == nil {
			if total += int64(p.Entry.Bytes); total > maxPipeBytes || len(all) == maxFiles {
				err = fmt.Errorf("more than %d bytes in pipes: %w", maxPipeBytes, image.ErrLimit)
			}
		}
		if err == nil {
			// ReadAll grows with what is really there.
			p.Data, err = io.ReadAll(r.Payload(int64(p.Entry.Bytes)))
		}
		if err != nil {
			report.Failed(t.File(0), err)
			return all
		}
		all = append(all, p)
	}
	return all
}

// refused are the images that a directory may have and whose entries the engine does not restore.
var refused = map[image.Type]string{
	image.FileLocks:    "file locks",
	image.MemFD:        "memfds",
	image.PagemapShmem: "shared memory",
	image.SkQueues:     "queues of sockets",
	image.TCPStream:    "TCP connections",
	image.BPFMapData:   "BPF maps",
	image.Mountpoints:  "a mount namespace",
	image.NetNS:        "a network namespace",
	image.NetDev:       "network devices",
	image.UTSNS:        "a UTS namespace",
	image.PIDNS:        "a pid namespace",
	image.UserNS:       "a user namespace",
	image.IPCVar:       "an IPC namespace",
	image.IPCShm:       "System V shared memory",
	image.IPCSem:       "System V semaphores",
	image.IPCMsg:       "System V message queues",
	image.AppArmor:     "AppArmor profiles",
	image.Autofs:       "automounts",
	image.BinfmtMisc:   "binary formats",
}

// refuseOthers says which images there are that nothing reads. Images that are empty say nothing and are let through.
func (s *Set) refuseOthers(d image.Dir, r *Report) {
	names, err := d.Names()
	if err != nil {
		r.Failed("the image directory", err)
		return
	}
	ghosts := s.ghostIDs()
	for _, name := range names {
		if r.Stopped() {
			return
		}
		t, id, ok := image.ParseFile(name)
		if !ok {
			if strings.HasSuffix(name, ".img") {
				r.Note("%s: an image of a kind that is not known", name)
			}
			continue
		}
		switch {
		case refused[t] != "":
			if hasEntries(d, t, id) {
				r.Unsupported(name, "%s: not restored by the built-in engine", refused[t])
			}
		case t == image.GhostFile && !ghosts[uint32(id)]:
			r.Note("%s: no file leads to it", name)
		case t == image.TimeNS && id != s.TimeNSID():
			r.Unsupported(name, "another time namespace than the first process's: not restored by the built-in engine")
		case t == image.Seccomp:
			if filters, _ := optional[entry.Seccomp](d, t, id, 1, r); len(filters) > 0 && len(filters[0].SeccompFilters) > 0 {
				r.Unsupported(name, "seccomp filters: not restored by the built-in engine")
			}
		case t == image.Cgroup:
			r.Note("%s: control groups are not made; processes stay in the one of whoever restores them", name)
		}
	}
}

// hasEntries reports whether an image has any. One that cannot be read has.
func hasEntries(d image.Dir, t image.Type, id uint64) bool {
	r, err := image.Open(d, t, id)
	if err != nil {
		return true
	}
	defer r.Close()
	_, err = io.CopyN(io.Discard, r.Rest(), 1)
	return !errors.Is(err, io.EOF)
}
