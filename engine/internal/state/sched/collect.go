//go:build amd64

package sched

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect asks the kernel how threads are scheduled.
func Collect(t *collect.Tree) error {
	for th := range t.Threads() {
		tid := th.Remote.TID
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			return fmt.Errorf("%s: sched_getattr: %w", th.Where(), err)
		}
		const flagResetOnFork = 1 // SCHED_FLAG_RESET_ON_FORK
		s := snapshot.Scheduling{Policy: attr.Policy, Nice: attr.Nice, Priority: attr.Priority}
		if attr.Flags&flagResetOnFork != 0 {
			s.Policy |= resetOnFork
		}
		if s.Affinity, err = t.Kernel.Affinity(tid); err != nil {
			return err
		}
		prio, err := t.Kernel.IOPriority(tid)
		if err != nil {
			return err
		}
		s.IOPrio = &prio
		th.Snapshot.Scheduling = s
		if th.Snapshot.TimerSlack, err = timerSlack(tid); err != nil {
			return err
		}
	}
	return nil
}

// timerSlack reads the slack of a thread, which the kernel has a file for in each process's directory; a thread is reached by
// its own number there.
func timerSlack(tid int) (*uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EPERM) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("/proc/%d/timerslack_ns: %w", tid, err)
	}
	return &n, nil
}
