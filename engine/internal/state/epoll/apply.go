//go:build amd64

package epoll

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
)

// Open makes an epoll file that watches nothing yet.
func Open() (*apply.File, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return apply.NewFile(fd), nil
}

// Apply lets a process add what its epoll files watch. It comes when its descriptors are where they were: the kernel knows what
// is watched by file and number.
func Apply(t *apply.Task) error {
	watch(t, 0, &t.Batch)
	return nil
}

// ApplyThread is Apply for a thread that has descriptors of its own.
func ApplyThread(th *apply.Thread) error {
	watch(th.Task, th.TID.Num(), &th.Batch)
	return nil
}

func watch(t *apply.Task, thread int, b *apply.Batch) {
	for _, w := range t.Tree.Watches[t.PID.Num()] {
		if w.Thread != thread {
			continue
		}
		for _, item := range w.Items {
			// struct epoll_event is packed here.
			event := binary.LittleEndian.AppendUint32(nil, item.Events)
			event = binary.LittleEndian.AppendUint64(event, item.Data)
			b.Do(fmt.Sprintf("epoll file %d: watch descriptor %d", w.FD, item.FD), unix.SYS_EPOLL_CTL,
				apply.Num(w.FD), apply.Num(unix.EPOLL_CTL_ADD), apply.Num(item.FD), apply.Bytes(event))
		}
	}
}
