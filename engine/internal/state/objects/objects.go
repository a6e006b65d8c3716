// Package objects is the state "what processes share": which address space, descriptor table, file system context and signal
// handlers each has, and its namespaces. In images it is ids-PID.img.
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
		for _, thread := range t.Threads {
			if thread.Table != 0 {
				r.Unsupported("process "+t.PID.String(), "thread %s has a descriptor table of its own", thread.TID)
			}
			if thread.FS != 0 {
				r.Unsupported("process "+t.PID.String(), "thread %s has a working directory of its own", thread.TID)
			}
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
	}
}

func decodeNamespaces(e *entry.TaskKobjIDs) snapshot.Namespaces {
	return snapshot.Namespaces{
		PID: e.GetPIDNSID(), Net: e.GetNetNSID(), IPC: e.GetIPCNSID(), UTS: e.GetUtsNSID(),
		Mount: e.GetMntNSID(), User: e.GetUserNSID(), Cgroup: e.GetCgroupNSID(), Time: e.GetTimeNSID(),
	}
}
