// Package fs is the state "root, working directory and umask". In images it is fs-PID.img.
//
//   - Collect: the links root and cwd of /proc/PID, and the umask from status.
//   - Apply: after everything that is opened by name. The root first, since chroot leaves the working directory
//     where it is, and fchdir needs no name.
package fs

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// Encode writes the contexts, each for the first task or thread that has it.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	contexts := make(map[snapshot.ObjectID]*snapshot.FSContext)
	for _, c := range from.FSContexts {
		contexts[c.ID] = c
	}
	done := make(map[snapshot.ObjectID]bool)
	encode := func(id snapshot.ObjectID, tid uint32) *entry.FS {
		if done[id] {
			return nil
		}
		done[id] = true
		c := contexts[id]
		if c == nil {
			r.Unsupported(name(tid), "file system context %d is not in the snapshot", id)
			return nil
		}
		return &entry.FS{CwdID: uint32(c.Cwd), RootID: uint32(c.Root), Umask: c.Umask}
	}
	for p, t := range to.Alive(from) {
		p.FS = encode(t.FS, p.Entry.PID)
		for _, thread := range t.Threads {
			if thread.FS == 0 {
				continue
			}
			tid := uint32(thread.TID.Num())
			if fs := encode(thread.FS, tid); fs != nil {
				if p.ThreadFS == nil {
					p.ThreadFS = make(map[uint32]*entry.FS)
				}
				p.ThreadFS[tid] = fs
			}
		}
	}
}

func name(tid uint32) string { return image.FS.File(uint64(tid)) }

// Decode reads the contexts.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		decode(from, to, p.FS, t.FS, p.Entry.PID, r)
		for _, thread := range t.Threads {
			tid := uint32(thread.TID.Num())
			decode(from, to, p.ThreadFS[tid], thread.FS, tid, r)
		}
	}
}

// decode reads one. It is nil where another task or thread has it, or where it is missing, which the reader has said.
func decode(from *images.Set, to *snapshot.Tree, fs *entry.FS, id snapshot.ObjectID, tid uint32, r *images.Report) {
	if fs == nil {
		return
	}
	r.Unknown(name(tid), fs, fs.Unknown)
	c := &snapshot.FSContext{ID: id, Cwd: snapshot.FileID(fs.CwdID), Root: snapshot.FileID(fs.RootID), Umask: fs.Umask}
	if c.Umask != nil && *c.Umask > 0o777 {
		r.Damaged(name(tid), "umask %#o", *c.Umask)
	}
	for _, f := range []struct {
		what string
		id   uint32
	}{{"working directory", fs.CwdID}, {"root", fs.RootID}} {
		e := from.File(f.id)
		switch {
		case e == nil:
			r.Damaged(name(tid), "the %s, file %d, is not in %s", f.what, f.id, image.Files.File(0))
		case e.Type != entry.FDTypeReg:
			r.Damaged(name(tid), "the %s, file %d, is of type %v", f.what, f.id, e.Type)
		}
	}
	to.FSContexts = append(to.FSContexts, c)
}
