// Package epoll is the state "epoll files". In images they are entries of type EVENTPOLL in files.img.
//
//   - Collect: items are in fdinfo; kcmp(KCMP_EPOLL_TFD) tells which file an item is of. An item whose number has been
//     closed or taken by another file gets the number of another descriptor of its file, as CRIU does it, and is refused where
//     there is none.
//   - Apply: epoll_create1 in the engine, but epoll_ctl in a task that has both descriptors, since the kernel knows an
//     item by file and number; which task, and in which order for epoll files that watch each other, is in plan.Plan.Watches.
package epoll

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Encode writes the files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for e, f := range to.FilesOf(from, entry.FDTypeEventPoll) {
		o := f.Object.(*snapshot.Epoll)
		e.Epfd = &entry.EventPoll{ID: e.ID, Flags: f.Flags, Fown: images.Fown(f)}
		for _, item := range o.Items {
			// The id has been without use since CRIU 1.0, and 0.
			e.Epfd.TFD = append(e.Epfd.TFD, entry.EventPollTFD{
				TFD: uint32(item.FD), Events: item.Events, Data: item.Data, Dev: item.Dev, Inode: item.Inode, Pos: item.Pos,
			})
		}
	}
}

// Decode reads the files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for e, f := range from.FilesOf(to, entry.FDTypeEventPoll) {
		if !images.Filled(e, e.Epfd, func(m *entry.EventPoll) uint32 { return m.ID }, r) {
			continue
		}
		where := images.FileName(e.ID)
		r.Unknown(where, e.Epfd, e.Epfd.Unknown)
		images.DecodeFile(e, f, e.Epfd.Flags, &e.Epfd.Fown, r)
		o := &snapshot.Epoll{}
		f.Object = o
		for i := range e.Epfd.TFD {
			item := &e.Epfd.TFD[i]
			r.Unknown(where, item, item.Unknown)
			if item.TFD > math.MaxInt32 {
				r.Damaged(where, "it watches descriptor %d", item.TFD)
				continue
			}
			o.Items = append(o.Items, snapshot.EpollItem{
				FD: int(item.TFD), Events: item.Events, Data: item.Data, Dev: item.Dev, Inode: item.Inode, Pos: item.Pos,
			})
		}
	}
}
