// Package objects is the state "what processes share": which address space, descriptor table, file system context and signal
// handlers each has, and its namespaces. In images it is ids-PID.img; what a thread has that is not its process's, by
// unshare(2), is in the ids of its core; another process may have it, too.
//
// CRIU can restore a shared descriptor table, and refuses to dump the rest; a set with those is marked as one for stasis only.
//
//   - Collect orders tasks by kcmp(2) and gives equal things equal numbers; namespaces by the inodes of ns/.
//   - Apply has nothing to do: package plan turns equal numbers into flags of clone3.
package objects

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// Encode writes the numbers.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	spaces, contexts, handlers := make(map[snapshot.ObjectID]bool), make(map[snapshot.ObjectID]bool), make(map[snapshot.ObjectID]bool)
	for p, t := range to.Alive(from) {
		p.IDs = encodeNamespaces(t.Namespaces)
		p.IDs.VMID, p.IDs.FilesID, p.IDs.FSID, p.IDs.SighandID = uint32(t.Space), uint32(t.Table), uint32(t.FS), uint32(t.Handlers)
		if spaces[t.Space] || contexts[t.FS] || handlers[t.Handlers] {
			to.StasisOnly()
		}
		spaces[t.Space], contexts[t.FS], handlers[t.Handlers] = true, true, true
		for i, thread := range t.Threads {
			if thread.Table == 0 && thread.FS == 0 {
				continue
			}
			if i == 0 || i >= len(p.Cores) {
				r.Unsupported("process "+t.PID.String(), "its first thread has descriptors or a working directory that are not the process's")
				continue
			}
			to.StasisOnly()
			ids := &entry.TaskKobjIDs{VMID: p.IDs.VMID, FilesID: p.IDs.FilesID, FSID: p.IDs.FSID, SighandID: p.IDs.SighandID}
			if thread.Table != 0 {
				ids.FilesID = uint32(thread.Table)
			}
			if thread.FS != 0 {
				ids.FSID = uint32(thread.FS)
			}
			p.Cores[i].IDs = ids
		}
	}
}

// encodeNamespaces returns an entry with the numbers of namespaces only.
func encodeNamespaces(n snapshot.Namespaces) *entry.TaskKobjIDs {
	known := func(id uint32) *uint32 {
		if id == 0 {
			return nil
		}
		return &id
	}
	return &entry.TaskKobjIDs{
		PIDNSID: known(n.PID), NetNSID: known(n.Net), IPCNSID: known(n.IPC), UtsNSID: known(n.UTS),
		MntNSID: known(n.Mount), UserNSID: known(n.User), CgroupNSID: known(n.Cgroup), TimeNSID: known(n.Time),
	}
}

// Decode reads the numbers.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		if p.IDs == nil {
			continue // missing, which the reader has said
		}
		name := image.IDs.File(uint64(p.Entry.PID))
		r.Unknown(name, p.IDs, p.IDs.Unknown)
		t.Space, t.Table = snapshot.ObjectID(p.IDs.VMID), snapshot.ObjectID(p.IDs.FilesID)
		t.FS, t.Handlers = snapshot.ObjectID(p.IDs.FSID), snapshot.ObjectID(p.IDs.SighandID)
		if t.Space == 0 || t.Table == 0 || t.FS == 0 || t.Handlers == 0 {
			r.Damaged(name, "the process has an address space, descriptors, a working directory or handlers with the number 0")
		}
		t.Namespaces = decodeNamespaces(p.IDs)
		if uint64(t.Namespaces.Time) == from.TimeNSID() {
			t.Namespaces.Time = to.Origin.Namespaces.Time // that of the first process is made anew for the clocks
		}
		decodeThreads(p, t, from.Inventory.ImgVersion, r)
	}
}

// decodeThreads reads the numbers of what threads have of their own.
func decodeThreads(p *images.Process, t *snapshot.Task, version uint32, r *images.Report) {
	for i, ids := range p.Apart() {
		if i >= len(t.Threads) {
			return
		}
		thread := t.Threads[i]
		name := images.CoreName(thread.TID.Num())
		r.Unknown(name, ids, ids.Unknown)
		switch {
		case version != image.VersionStasis:
			r.Damaged(name, "a thread has descriptors or a working directory of its own, which images of this version cannot have")
		case ids.VMID != p.IDs.VMID || ids.SighandID != p.IDs.SighandID:
			r.Damaged(name, "a thread has another address space, or other signal handlers, than its process")
		case ids.FilesID == 0 || ids.FSID == 0:
			r.Damaged(name, "the thread has descriptors or a working directory with the number 0")
		}
		if ids.FilesID != p.IDs.FilesID {
			thread.Table = snapshot.ObjectID(ids.FilesID)
		}
		if ids.FSID != p.IDs.FSID {
			thread.FS = snapshot.ObjectID(ids.FSID)
		}
	}
}

func decodeNamespaces(e *entry.TaskKobjIDs) snapshot.Namespaces {
	return snapshot.Namespaces{
		PID: e.GetPIDNSID(), Net: e.GetNetNSID(), IPC: e.GetIPCNSID(), UTS: e.GetUtsNSID(),
		Mount: e.GetMntNSID(), User: e.GetUserNSID(), Cgroup: e.GetCgroupNSID(), Time: e.GetTimeNSID(),
	}
}
