//go:build amd64

package sched

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/internal/linux"
)

const (
	flagResetOnFork = 1  // SCHED_FLAG_RESET_ON_FORK
	sizeVer0        = 48 // of a struct sched_attr without utilisation clamps
)

// Apply sets how a thread is scheduled, from outside, as far as it differs. It is before the credentials: of threads of other
// users only CAP_SYS_NICE may say how they are scheduled.
func Apply(th *apply.Thread) error {
	k := th.Task.Tree.Kernel
	tid := th.Remote.TID
	if err := affinity(th, k, tid); err != nil {
		return fmt.Errorf("%s: %w", th.Where(), err)
	}
	if err := policy(th, tid); err != nil {
		return err
	}
	// Where none was set, what the kernel says follows from policy and nice value.
	if want := th.Scheduling.IOPrio; want != nil {
		has, err := k.IOPriority(tid)
		if err == nil && has != *want {
			err = k.SetIOPriority(tid, *want)
		}
		if err != nil {
			return fmt.Errorf("%s: I/O priority %#x: %w", th.Where(), *want, nice(err))
		}
	}
	return nil
}

func policy(th *apply.Thread, tid int) error {
	s := &th.Scheduling
	has, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return fmt.Errorf("%s: sched_getattr: %w", th.Where(), err)
	}
	twentyMinus, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	if err != nil {
		return fmt.Errorf("%s: getpriority: %w", th.Where(), err)
	}
	if 20-twentyMinus != int(s.Nice) {
		// By itself: SCHED_IDLE and the realtime policies leave it what it was, that of whoever restores.
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, int(s.Nice)); err != nil {
			return fmt.Errorf("%s: nice %d: %w", th.Where(), s.Nice, nice(err))
		}
	}
	want := unix.SchedAttr{Size: sizeVer0, Policy: s.Policy &^ resetOnFork}
	if s.Policy&resetOnFork != 0 {
		want.Flags = flagResetOnFork
	}
	if realtime(s.Policy) {
		want.Priority = s.Priority
	} else {
		want.Nice = s.Nice
	}
	if has.Policy == want.Policy && has.Flags&flagResetOnFork == want.Flags && has.Priority == want.Priority {
		return nil
	}
	if err := unix.SchedSetAttr(tid, &want, 0); err != nil {
		return fmt.Errorf("%s: scheduling policy %d, nice %d, priority %d: %w", th.Where(), want.Policy, s.Nice, s.Priority, nice(err))
	}
	return nil
}

// affinity says on which processors a thread may run.
func affinity(th *apply.Thread, k *linux.Kernel, tid int) error {
	want := th.Scheduling.Affinity
	if want == nil {
		return nil
	}
	mask := want
	if len(want) == 0 {
		mask = make([]uint64, 1024/8 /* all that Linux can be built for */)
		for i := range mask {
			mask[i] = ^uint64(0)
		}
	}
	err := k.SetAffinity(tid, mask)
	if errors.Is(err, unix.EINVAL) {
		th.Task.Tree.Note("%s: the machine has none of the processors that it may run on; it may run on any now", th.Where())
		return nil
	}
	if err != nil || len(want) == 0 {
		return nice(err)
	}
	has, err := k.Affinity(tid)
	if err != nil {
		return err
	}
	for i, w := range want {
		if i >= len(has) && w != 0 || i < len(has) && w&^has[i] != 0 {
			th.Task.Tree.Note("%s: the machine does not have all processors that it may run on", th.Where())
			break
		}
	}
	return nil
}

// nice says what is missing where the kernel refuses.
func nice(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (needs CAP_SYS_NICE)", err)
	}
	return err
}
