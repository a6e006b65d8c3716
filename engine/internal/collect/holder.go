//go:build amd64

package collect

import (
	"fmt"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// A Holder is the task by which the kernel shows a descriptor table or a working directory: the first living thread of a
// process, or a thread that has one of its own.
type Holder struct {
	Process *Process
	TID     int
	Dir     proc.Dir
}

// Holder returns the task by which the kernel shows what the process has.
func (p *Process) Holder() Holder { return Holder{p, p.Live(), p.Dir} }

// Holder returns the thread as one that has something of its own.
func (th *Thread) Holder() Holder { return Holder{th.Process, th.Remote.TID, th.Dir} }

// Where names the process or the thread in reports.
func (h Holder) Where() string {
	if h.TID == h.Process.Live() {
		return h.Process.Where()
	}
	return h.Process.Where() + ": thread " + strconv.Itoa(h.TID)
}

// Path returns the path of a file in the task's directory of /proc.
func (h Holder) Path(name string) string { return path.Join("/proc", strconv.Itoa(h.TID), name) }

// take duplicates a descriptor into this process.
func (h Holder) take(fd int) (int, error) {
	if h.TID == h.Process.Live() {
		return unix.PidfdGetfd(h.Process.PIDFD, fd, 0)
	}
	pidfd, err := linux.OpenTask(h.TID)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open of a thread (needs Linux 6.9): %w", err)
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, fd, 0)
}
