//go:build amd64

package timers

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// prctl(PR_TIMER_CREATE_RESTORE_IDS): timer_create takes the number from where it writes it otherwise (Linux 6.15).
const (
	restoreIDs    = 77
	restoreIDsOff = 0
	restoreIDsOn  = 1
	restoreIDsGet = 2
)

// maxCounted bounds the numbers that are reached by counting.
const maxCounted = 1 << 18

// Apply makes the timers of timer_create, which do not run yet. Threads that they are for are there.
func Apply(t *apply.Task) error {
	if len(t.Timers) == 0 {
		return nil
	}
	for i := range t.Timers {
		v := &t.Timers[i]
		if v.Clock == ownThread && len(t.Threads) > 1 {
			// CRIU's images do not tell of which thread. A signal for a thread goes to the one, nearly always.
			t.Tree.Note("%s: timer %d counts the processor time of a thread, and the images do not say of which", t.Where(), v.ID)
			if v.Thread != 0 {
				v.Clock = clockOf(v.Thread)
			}
		}
	}
	all := slices.SortedFunc(slices.Values(t.Timers), func(a, b snapshot.Timer) int { return cmp.Compare(a.ID, b.ID) })
	chosen, err := canChoose()
	if err != nil {
		return err
	}
	if chosen {
		b := &t.Batch
		b.Do("prctl(PR_TIMER_CREATE_RESTORE_IDS)", unix.SYS_PRCTL, apply.Num(restoreIDs), apply.Num(restoreIDsOn))
		for i := range all {
			create(b, &all[i], all[i].ID)
		}
		b.Do("prctl(PR_TIMER_CREATE_RESTORE_IDS)", unix.SYS_PRCTL, apply.Num(restoreIDs), apply.Num(restoreIDsOff))
		return nil
	}
	return count(t, all)
}

// canChoose reports whether the numbers of timers can be chosen.
func canChoose() (bool, error) {
	_, err := unix.PrctlRetInt(restoreIDs, restoreIDsGet, 0, 0, 0)
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// count makes timers on kernels where a process's numbers go up by one from 0: those in between are made and deleted.
func count(t *apply.Task, all []snapshot.Timer) error {
	if last := all[len(all)-1].ID; last > maxCounted {
		return fmt.Errorf("%s: timer %d: a timer of so high a number can be made from Linux 6.15 on: %w", t.Where(), last, errors.ErrUnsupported)
	}
	next := uint32(0)
	for i := range all {
		for ; next < all[i].ID; next++ {
			create(&t.Batch, &snapshot.Timer{Clock: unix.CLOCK_MONOTONIC, Notify: sigevNone}, next)
			t.Batch.Do("timer_delete", unix.SYS_TIMER_DELETE, apply.Num(next))
		}
		create(&t.Batch, &all[i], next)
		next++
	}
	return nil
}

// create makes a timer that must get a number.
func create(b *apply.Batch, v *snapshot.Timer, id uint32) {
	const size = 64 // of a struct sigevent
	event := make([]byte, size)
	binary.LittleEndian.PutUint64(event, v.Value)
	binary.LittleEndian.PutUint32(event[8:], v.Signal)
	binary.LittleEndian.PutUint32(event[12:], v.Notify)
	binary.LittleEndian.PutUint32(event[16:], uint32(v.Thread))
	what := fmt.Sprintf("timer_create of timer %d", id)
	b.Ask(what, 2, func(_ uint64, written []byte) error {
		if got := binary.LittleEndian.Uint32(written); got != id {
			return fmt.Errorf("the kernel has given it the number %d", got)
		}
		return nil
	}, unix.SYS_TIMER_CREATE, apply.Num(v.Clock), apply.Bytes(event), apply.Words32(id))
}

// Arm starts the timers of a process, as late as can be: time goes on for them from then on. It is for the last thread.
func Arm(th *apply.Thread) error {
	if !th.Last() {
		return nil
	}
	t := th.Task
	for i, v := range t.IntervalTimer {
		value := v.Value
		if i == unix.ITIMER_REAL {
			value = due(value, v.Interval)
		}
		if !value.IsZero() || !v.Interval.IsZero() {
			th.Batch.Do(fmt.Sprintf("setitimer of timer %d", i), unix.SYS_SETITIMER, apply.Num(i), timerBytes(v.Interval, value, 1000), apply.Num(0))
		}
	}
	for i := range t.Timers {
		v := &t.Timers[i]
		if value := due(v.Remaining, v.Interval); !value.IsZero() && !t.Running[v.ID] {
			th.Batch.Do(fmt.Sprintf("timer_settime of timer %d", v.ID), unix.SYS_TIMER_SETTIME, apply.Num(v.ID), apply.Num(0), timerBytes(v.Interval, value, 1), apply.Num(0))
		}
	}
	return nil
}

// due returns when a timer goes off next. One that has an interval, and nothing left, went off while it was looked at.
func due(value, interval snapshot.Timespec) snapshot.Timespec {
	if value.IsZero() {
		return interval
	}
	return value
}

func timerBytes(interval, value snapshot.Timespec, scale int64) apply.Arg {
	return apply.Words(uint64(interval.Sec), uint64(interval.Nsec/scale), uint64(value.Sec), uint64(value.Nsec/scale))
}
