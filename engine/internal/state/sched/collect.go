//go:build amd64

package sched

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
)

// Collect asks the kernel how threads are scheduled.
func Collect(t *collect.Tree) error {
	online, err := processors()
	if err != nil {
		return err
	}
	for th := range t.Threads() {
		tid := th.Remote.TID
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			return fmt.Errorf("%s: sched_getattr: %w", th.Where(), err)
		}
		// sched_getattr does not tell the nice value of realtime policies.
		twentyMinus, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if err != nil {
			return fmt.Errorf("%s: getpriority: %w", th.Where(), err)
		}
		const flagResetOnFork = 1 // SCHED_FLAG_RESET_ON_FORK
		s := snapshot.Scheduling{Policy: attr.Policy, Nice: int32(20 - twentyMinus), Priority: attr.Priority}
		if attr.Flags&flagResetOnFork != 0 {
			s.Policy |= resetOnFork
		}
		if s.Affinity, err = t.Kernel.Affinity(tid); err != nil {
			return err
		}
		if covers(s.Affinity, online) {
			s.Affinity = []uint64{} // any: on another machine with more of them, these, too
		}
		prio, err := t.Kernel.IOPriority(tid)
		if err != nil {
			return err
		}
		s.IOPrio = &prio
		th.Snapshot.Scheduling = s
		if th.Snapshot.TimerSlack, err = timerSlack(t, tid); err != nil {
			return err
		}
	}
	return nil
}

// timerSlack reads the slack of a thread, nil where the kernel does not tell.
func timerSlack(t *collect.Tree, tid int) (*uint64, error) {
	n, err := t.Proc.Process(tid).TimerSlack()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EPERM) {
		return nil, nil
	}
	return &n, err
}

// processors returns those that the machine has switched on, nil where it does not tell.
func processors() ([]uint64, error) {
	text, err := linux.ReadProc("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, nil
	}
	return cpuList(strings.TrimSpace(string(text)))
}

// cpuList reads a list such as "0-3,8".
func cpuList(text string) ([]uint64, error) {
	var set []uint64
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from > to {
			return nil, fmt.Errorf("/sys/devices/system/cpu/online: %q is no list of processors", text)
		}
		for n := from; n <= to; n++ {
			for uint64(len(set)) <= n/64 {
				set = append(set, 0)
			}
			set[n/64] |= 1 << (n % 64)
		}
	}
	return set, nil
}

// covers reports whether a set has all of another one, which is known.
func covers(set, other []uint64) bool {
	for i, w := range other {
		if i >= len(set) || w&^set[i] != 0 {
			return false
		}
	}
	return len(other) > 0
}
