// Package eventfd is the state "eventfd files". In images they are entries of type EVENTFD in files.img.
//
// It is the smallest kind of file and the pattern for the others.
//
// Images have no place of their own for EFD_SEMAPHORE, and CRIU 4.2 loses it. Here it goes into the flags with the value that
// eventfd2 knows it by, a bit that the flags of a file opened for reading and writing do not have.
//
//   - Collect: the counter and, since Linux 6.5, whether it is a semaphore are in fdinfo.
//   - Apply: eventfd2 in the engine, then fcntl for the flags that eventfd2 does not take; a counter of more than 32
//     bits is written to it.
package eventfd

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// semaphore is EFD_SEMAPHORE.
const semaphore = 1

// Encode writes the files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for e, f := range to.FilesOf(from, entry.FDTypeEventFD) {
		o := f.Object.(*snapshot.EventFD)
		e.Efd = &entry.EventFD{ID: e.ID, Flags: f.Flags, Fown: images.Fown(f), Counter: o.Counter}
		if o.Semaphore {
			e.Efd.Flags |= semaphore
		}
	}
}

// Decode reads the files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for e, f := range from.FilesOf(to, entry.FDTypeEventFD) {
		if !images.Filled(e, e.Efd, func(m *entry.EventFD) uint32 { return m.ID }, r) {
			continue
		}
		where := images.FileName(e.ID)
		r.Unknown(where, e.Efd, e.Efd.Unknown)
		images.DecodeFile(e, f, e.Efd.Flags&^semaphore, &e.Efd.Fown, r)
		f.Object = &snapshot.EventFD{Counter: e.Efd.Counter, Semaphore: e.Efd.Flags&semaphore != 0}
		if e.Efd.Counter == math.MaxUint64 {
			r.Damaged(where, "the counter is %d, which it cannot reach", e.Efd.Counter)
		}
	}
}
