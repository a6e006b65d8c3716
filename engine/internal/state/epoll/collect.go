//go:build amd64

package epoll

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

const link = "anon_inode:[eventpoll]"

// Collect claims the epoll files.
func Collect(t *collect.Tree) error {
	for _, f := range t.Files.All {
		if f.Object != nil || f.FD < 0 || f.Link != link {
			continue
		}
		o := &snapshot.Epoll{}
		f.Object = o
		for i := range f.Info.EventPoll {
			item := &f.Info.EventPoll[i]
			if !watched(f, item) {
				t.Report.Unsupported(f.Where(), "it watches descriptor %d, which was closed since or is another file by now", item.TFD)
				continue
			}
			o.Items = append(o.Items, snapshot.EpollItem{
				FD: item.TFD, Events: item.Events, Data: item.Data, Dev: &item.Dev, Inode: &item.Ino, Pos: new(uint64(item.Pos)),
			})
		}
	}
	return nil
}

// watched tells whether a descriptor is the file that it was when it was added, as far as the kernel shows it: its inode.
// Files that have none of their own, such as eventfds, all have the same.
func watched(f *collect.File, item *proc.EventPollTarget) bool {
	var st unix.Stat_t
	if err := unix.Stat(f.Process.Path(fmt.Sprintf("fd/%d", item.TFD)), &st); err != nil {
		return false
	}
	return st.Ino == item.Ino || item.Ino == 0
}
