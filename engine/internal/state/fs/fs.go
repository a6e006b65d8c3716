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

// Encode writes the contexts, each for the first task that has it.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	contexts := make(map[snapshot.ObjectID]*snapshot.FSContext)
	for _, c := range from.FSContexts {
		contexts[c.ID] = c
	}
	done := make(map[snapshot.ObjectID]bool)
	for p, t := range to.Alive(from) {
		if done[t.FS] {
			continue
		}
		done[t.FS] = true
		c := contexts[t.FS]
		if c == nil {
			r.Unsupported(name(p), "file system context %d is not in the snapshot", t.FS)
			continue
		}
		p.FS = &entry.FS{CwdID: uint32(c.Cwd), RootID: uint32(c.Root), Umask: c.Umask}
	}
}

func name(p *images.Process) string { return image.FS.File(uint64(p.Entry.PID)) }

// Decode reads the contexts.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		if p.FS == nil {
			continue // another task has it, or the reader has said that it is missing
		}
		r.Unknown(name(p), p.FS, p.FS.Unknown)
		c := &snapshot.FSContext{ID: t.FS, Cwd: snapshot.FileID(p.FS.CwdID), Root: snapshot.FileID(p.FS.RootID), Umask: p.FS.Umask}
		if c.Umask != nil && *c.Umask > 0o777 {
			r.Damaged(name(p), "umask %#o", *c.Umask)
		}
		for _, f := range []struct {
			what string
			id   uint32
		}{{"working directory", p.FS.CwdID}, {"root", p.FS.RootID}} {
			e := from.File(f.id)
			switch {
			case e == nil:
				r.Damaged(name(p), "the %s, file %d, is not in %s", f.what, f.id, image.Files.File(0))
			case e.Type != entry.FDTypeReg:
				r.Damaged(name(p), "the %s, file %d, is of type %v", f.what, f.id, e.Type)
			}
		}
		to.FSContexts = append(to.FSContexts, c)
	}
}
