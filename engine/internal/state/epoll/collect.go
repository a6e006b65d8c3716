//go:build amd64

package epoll

import (
	"errors"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
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
		times := make(map[int]int)
		for i := range f.Info.EventPoll {
			item := &f.Info.EventPoll[i]
			fd, err := watched(t, f, item.TFD, times[item.TFD])
			if err != nil {
				return err
			}
			times[item.TFD]++
			if fd < 0 {
				t.Report.Unsupported(f.Where(), "it watches what was descriptor %d, which the process has no descriptor of any more", item.TFD)
				continue
			}
			o.Items = append(o.Items, snapshot.EpollItem{
				FD: fd, Events: item.Events, Data: item.Data, Dev: &item.Dev, Inode: &item.Ino, Pos: new(uint64(item.Pos)),
			})
		}
	}
	return nil
}

// watched finds a descriptor of the file that an epoll file watches under a number; nth counts those under the same number. It
// is the number itself, unless that was closed since or is another file by now: -1 where there is none.
func watched(t *collect.Tree, f *collect.File, target, nth int) (int, error) {
	is := func(fd int) (bool, error) {
		same, err := t.Kernel.SameTarget(f.Process.PID, fd, f.FD, target, nth)
		if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ENOENT) {
			err = nil
		}
		return same, err
	}
	if same, err := is(target); err != nil || same {
		return target, err
	}
	fds, err := f.Process.Dir.FDs()
	if err != nil {
		return -1, err
	}
	for _, fd := range fds {
		if same, err := is(fd); err != nil || same {
			return fd, err
		}
	}
	return -1, nil
}
