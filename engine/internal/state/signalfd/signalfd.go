// Package signalfd is the state "signalfd files". In images they are entries of type SIGNALFD in files.img.
//
//   - Collect: the mask is in fdinfo. What a signalfd would read are the reader's own pending signals, which package
//     signals has.
//   - Apply: signalfd4 in the engine; the file has no tie to who made it.
package signalfd

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Encode writes the files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for e, f := range to.FilesOf(from, entry.FDTypeSignalFD) {
		o := f.Object.(*snapshot.SignalFD)
		e.Sgfd = &entry.SignalFD{ID: e.ID, Flags: f.Flags, Fown: images.Fown(f), Sigmask: uint64(o.Mask)}
	}
}

// Decode reads the files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for e, f := range from.FilesOf(to, entry.FDTypeSignalFD) {
		if !images.Filled(e, e.Sgfd, func(m *entry.SignalFD) uint32 { return m.ID }, r) {
			continue
		}
		r.Unknown(images.FileName(e.ID), e.Sgfd, e.Sgfd.Unknown)
		images.DecodeFile(e, f, e.Sgfd.Flags, &e.Sgfd.Fown, r)
		f.Object = &snapshot.SignalFD{Mask: snapshot.SigSet(e.Sgfd.Sigmask)}
	}
}
