// Package fds is the state "descriptor tables", and the list of open files whatever their kind. In images the tables are
// fdinfo-N.img, N being files_id of ids-PID.img, and the list is files.img, whose entries the packages of the kinds of files fill.
//
// It comes before the kinds of files in both directions: it makes the files that they fill, and says what no kind is there for.
//
//   - Collect: fdinfo and links of /proc/PID/fd; descriptions that look alike are told apart by kcmp(2).
//   - Apply: the engine has every file open, once, and processes inherit them at numbers of ours; each moves what its table
//     names to its slot. So a description that was shared is shared again. Owners (SIGIO) are set when they are there.
package fds

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// fdCloexec is the one flag of a descriptor.
const fdCloexec = 1

// maxFD is the highest number that NR_OPEN can be raised to.
const maxFD = math.MaxInt32 - 63

// typeOf returns the number that images have for a kind of object.
func typeOf(o snapshot.Object) (entry.FDType, bool) {
	switch o.(type) {
	case *snapshot.Regular:
		return entry.FDTypeReg, true
	case *snapshot.PipeEnd:
		return entry.FDTypePipe, true
	case *snapshot.FIFOEnd:
		return entry.FDTypeFIFO, true
	case *snapshot.EventFD:
		return entry.FDTypeEventFD, true
	case *snapshot.Epoll:
		return entry.FDTypeEventPoll, true
	case *snapshot.SignalFD:
		return entry.FDTypeSignalFD, true
	case *snapshot.TimerFD:
		return entry.FDTypeTimerFD, true
	case *snapshot.TTY:
		return entry.FDTypeTTY, true
	case *snapshot.RPCSocket:
		return entry.FDTypeUnixSk, true
	}
	return entry.FDTypeUnd, false
}

// Encode writes the tables, and the numbers and types of files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	types := make(map[snapshot.FileID]entry.FDType, len(from.Files))
	to.Files = make([]entry.File, len(from.Files))
	for i, f := range from.Files {
		typ, ok := typeOf(f.Object)
		if !ok {
			r.Unsupported(images.FileName(uint32(f.ID)), "a file of an unknown kind")
		}
		types[f.ID] = typ
		to.Files[i] = entry.File{Type: typ, ID: uint32(f.ID)}
	}
	to.FDInfo = make(map[uint32][]entry.FDInfo, len(from.Tables))
	for _, table := range from.Tables {
		slots := make([]entry.FDInfo, len(table.Slots))
		for i, s := range table.Slots {
			typ, ok := types[s.File]
			if !ok {
				r.Unsupported(image.FDInfo.File(uint64(table.ID)), "descriptor %d: file %d is not in the snapshot", s.FD, s.File)
			}
			slots[i] = entry.FDInfo{ID: uint32(s.File), Type: typ, FD: uint32(s.FD)}
			if s.CloseOnExec {
				slots[i].Flags = fdCloexec
			}
		}
		to.FDInfo[uint32(table.ID)] = slots
	}
	for _, t := range to.Alive(from) {
		inSnapshot(to, t.PID, t.Table, r)
		for _, thread := range t.Threads {
			if thread.Table != 0 {
				inSnapshot(to, thread.TID, thread.Table, r)
			}
		}
	}
}

func inSnapshot(to *images.Set, who snapshot.PID, id snapshot.ObjectID, r *images.Report) {
	if _, ok := to.FDInfo[uint32(id)]; !ok {
		r.Unsupported(image.FDInfo.File(uint64(id)), "the descriptor table of %s is not in the snapshot", who)
	}
}

// Decode reads the tables and makes the files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	decodeFiles(from, to, r)
	seen := make(map[snapshot.ObjectID]bool)
	add := func(id snapshot.ObjectID) {
		if id == 0 || seen[id] {
			return
		}
		seen[id] = true
		table := &snapshot.Table{ID: id}
		decodeTable(table, from, r)
		to.Tables = append(to.Tables, table)
	}
	for p, t := range from.Alive(to) {
		if p.IDs == nil {
			continue
		}
		add(t.Table)
		for _, thread := range t.Threads {
			add(thread.Table)
		}
	}
}

func decodeFiles(from *images.Set, to *snapshot.Tree, r *images.Report) {
	files := make([]snapshot.File, len(from.Files))
	to.Files = make([]*snapshot.File, len(from.Files))
	for i := range from.Files {
		e := &from.Files[i]
		r.UnknownInFile(e.ID, e, e.Unknown)
		files[i].ID = snapshot.FileID(e.ID)
		to.Files[i] = &files[i]
		if e.ID == 0 {
			r.Damaged(images.FileName(e.ID), "0 is no number of a file")
		}
		if from.File(e.ID) != e { // that has the number is the last
			r.Damaged(images.FileName(e.ID), "the number occurs twice")
		}
		if kind := unsupported(e); kind != "" {
			r.Unsupported(images.FileName(e.ID), "%s: not restored by the built-in engine", kind)
		}
	}
}

// unsupported names the kinds of files that no package is there for.
func unsupported(e *entry.File) string {
	const ofConversation = 2 // uflags; see package rpcsock
	switch t := e.Type; t {
	case entry.FDTypeReg, entry.FDTypePipe, entry.FDTypeFIFO, entry.FDTypeEventFD, entry.FDTypeEventPoll, entry.FDTypeSignalFD,
		entry.FDTypeTimerFD, entry.FDTypeTTY:
		return ""
	case entry.FDTypeInetSk:
		return "internet socket"
	case entry.FDTypeUnixSk:
		if e.Usk != nil && e.Usk.Uflags&ofConversation != 0 {
			return ""
		}
		return "unix socket"
	case entry.FDTypePacketSk:
		return "packet socket"
	case entry.FDTypeNetlinkSk:
		return "netlink socket"
	case entry.FDTypeInotify:
		return "inotify"
	case entry.FDTypeFanotify:
		return "fanotify"
	case entry.FDTypeNS:
		return "namespace"
	case entry.FDTypeTunF:
		return "tun device"
	case entry.FDTypeExt:
		return "file of a CRIU plugin"
	case entry.FDTypeMemFD:
		return "memfd"
	case entry.FDTypeBPFMap:
		return "BPF map"
	case entry.FDTypePidFD:
		return "pidfd"
	}
	return "file of type " + e.Type.String()
}

func decodeTable(table *snapshot.Table, from *images.Set, r *images.Report) {
	where := image.FDInfo.File(uint64(table.ID))
	last := -1
	entries := from.FDInfo[uint32(table.ID)]
	table.Slots = make([]snapshot.Slot, 0, len(entries))
	for i := range entries {
		e := &entries[i]
		r.Unknown(where, e, e.Unknown)
		f := from.File(e.ID)
		switch {
		case e.FD > maxFD:
			r.Damaged(where, "descriptor %d: no such number can be", e.FD)
			continue
		case int(e.FD) <= last:
			r.Damaged(where, "descriptor %d comes after %d", e.FD, last)
		case f == nil:
			r.Damaged(where, "descriptor %d: file %d is not in %s", e.FD, e.ID, image.Files.File(0))
		case f.Type != e.Type:
			r.Damaged(where, "descriptor %d: file %d is said to be of type %v, and is of type %v", e.FD, e.ID, e.Type, f.Type)
		}
		if e.Flags&^uint32(fdCloexec) != 0 {
			r.Damaged(where, "descriptor %d: flags %#x", e.FD, e.Flags)
		}
		last = max(last, int(e.FD))
		table.Slots = append(table.Slots, snapshot.Slot{FD: int(e.FD), File: snapshot.FileID(e.ID), CloseOnExec: e.Flags&fdCloexec != 0})
	}
}
