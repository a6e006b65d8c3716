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
		numbers, err := targets(t, f)
		if err != nil {
			return err
		}
		for i := range f.Info.EventPoll {
			item := &f.Info.EventPoll[i]
			if numbers[i] < 0 {
				t.Report.Unsupported(f.Where(), "it watches what was descriptor %d, which the process has no descriptor of any more, or none that it does not watch by anyway", item.TFD)
				continue
			}
			o.Items = append(o.Items, snapshot.EpollItem{
				FD: numbers[i], Events: item.Events, Data: item.Data, Dev: &item.Dev, Inode: &item.Ino, Pos: new(uint64(item.Pos)),
			})
		}
	}
	return nil
}

// targets returns the numbers by which an epoll file can watch again what it watches: those that it has, unless they were closed
// since or are other files' by now; then that of another descriptor of the same file, -1 where there is none. An epoll file knows
// each file by a number only once.
func targets(t *collect.Tree, f *collect.File) ([]int, error) {
	items := f.Info.EventPoll
	numbers, nth := make([]int, len(items)), make([]int, len(items))
	times, used := make(map[int]int), make(map[int]bool)
	for i := range items {
		target := items[i].TFD
		nth[i] = times[target]
		times[target]++
		same, err := is(t, f, target, target, nth[i])
		if err != nil {
			return nil, err
		}
		numbers[i] = -1
		if same {
			numbers[i], used[target] = target, true
		}
	}
	for i := range items {
		if numbers[i] >= 0 {
			continue
		}
		var err error
		if numbers[i], err = another(t, f, items[i].TFD, nth[i], used); err != nil {
			return nil, err
		}
		used[numbers[i]] = true
	}
	return numbers, nil
}

// another finds a descriptor, whose number is not used, of the file that an epoll file watches under a number; nth counts those
// under the same number.
func another(t *collect.Tree, f *collect.File, target, nth int, used map[int]bool) (int, error) {
	fds, err := f.Dir.FDs()
	if err != nil {
		return -1, err
	}
	for _, fd := range fds {
		if used[fd] {
			continue
		}
		if same, err := is(t, f, fd, target, nth); err != nil || same {
			return fd, err
		}
	}
	return -1, nil
}

func is(t *collect.Tree, f *collect.File, fd, target, nth int) (bool, error) {
	same, err := t.Kernel.SameTarget(f.TID, fd, f.FD, target, nth)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return same, err
}
