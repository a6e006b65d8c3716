//go:build amd64

package timers

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// How often a timer has overrun
//
// No call sets what timer_getoverrun tells; the kernel counts it when it hands out the timer's signal: the intervals that have
// passed since the timer went off (kernel/time/posix-timers.c, posixtimer_deliver_signal). So a timer is started that many
// intervals, and the one that is under way, in the past. It goes off at once, and its signal is taken at once: that makes the
// count, and the kernel starts the timer again, at the end of the interval that is under way. To start it once more would clear
// the count, so it runs from then on.
//
// A time in the past can be told by the clock alone. That rules out processor time, whose clocks are at zero in a process that is
// made, and CLOCK_REALTIME, with which the timer would from then on follow whoever sets the clock, as only those do that the
// program has started by the clock; the kernel does not say which these are.

const (
	siTimer = -2 // SI_TIMER, the si_code of a timer's signal
	setSize = 8  // of a signal set
)

// soon is how much time taking a signal may need: a timer that goes off earlier does so after the time, if its interval is longer.
const soon = 2 * time.Millisecond

// Overruns starts the timers that had overrun when they went off last. It comes when all threads are there, and takes signals, so
// none of the program's may wait yet.
func Overruns(t *apply.Task) error {
	late := overrun(t)
	if len(late) == 0 {
		return nil
	}
	now := make(map[int32]snapshot.Timespec)
	for _, v := range late {
		if _, ok := now[v.Clock]; ok {
			continue
		}
		now[v.Clock] = snapshot.Timespec{}
		t.Batch.Ask("clock_gettime", 1, func(_ uint64, b []byte) error {
			now[v.Clock] = snapshot.Timespec{Sec: int64(binary.LittleEndian.Uint64(b)), Nsec: int64(binary.LittleEndian.Uint64(b[8:]))}
			return nil
		}, unix.SYS_CLOCK_GETTIME, apply.Num(v.Clock), apply.Words(0, 0))
	}
	// Timers that are made here are not there before this, either.
	if err := t.Run(); err != nil {
		return err
	}
	for _, v := range late {
		at, ok := since(now[v.Clock], v)
		if !ok {
			lost(t, v, "the clock was not at zero that long ago")
			continue
		}
		takeOverrun(t, v, at)
	}
	return t.Run()
}

// overrun returns the timers whose count can be put back.
func overrun(t *apply.Task) (late []*snapshot.Timer) {
	for i := range t.Timers {
		v := &t.Timers[i]
		switch {
		case v.Overrun == 0 || v.Interval.IsZero() || v.Notify == sigevNone:
			// Only a signal is late, and only of a timer that goes off again.
		case waits(t, v):
			lost(t, v, "it has gone off again, and its signal waits")
		case v.Clock == unix.CLOCK_REALTIME:
			lost(t, v, "it would follow whoever sets the clock from then on")
		case v.Clock != unix.CLOCK_MONOTONIC && v.Clock != unix.CLOCK_BOOTTIME && v.Clock != unix.CLOCK_TAI:
			lost(t, v, "its clock is one that cannot be put back")
		case v.Signal == uint32(unix.SIGKILL) || v.Signal == uint32(unix.SIGTRAP) || v.Signal == uint32(unix.SIGSTOP):
			lost(t, v, fmt.Sprintf("signal %d cannot be taken from a process that is being made", v.Signal))
		default:
			late = append(late, v)
		}
	}
	return late
}

func lost(t *apply.Task, v *snapshot.Timer, why string) {
	t.Tree.Note("%s: timer %d had overrun %d times when it went off, which is not put back: %s", t.Where(), v.ID, v.Overrun, why)
}

// waits reports whether a timer's signal waits that nobody has taken yet: the kernel has not counted for it, and its taker asks for
// this signal's count, which is not the one of the signal before. One that has been taken and was queued again has its count.
func waits(t *apply.Task, v *snapshot.Timer) bool {
	const idAt, overrunAt = 16, 20
	own := func(s snapshot.Siginfo) bool {
		return s.Code() == siTimer && binary.LittleEndian.Uint32(s[idAt:]) == v.ID && binary.LittleEndian.Uint32(s[overrunAt:]) == 0
	}
	return slices.ContainsFunc(t.Pending, own) ||
		slices.ContainsFunc(t.Threads, func(th *apply.Thread) bool { return slices.ContainsFunc(th.Pending, own) })
}

// since returns when a timer that has overrun so often went off, if it goes off next when it is to: this must be after the clock's
// zero.
func since(now snapshot.Timespec, v *snapshot.Timer) (at snapshot.Timespec, ok bool) {
	const most = math.MaxInt64 / int64(time.Second) / 4 // seconds that are no problem in nanoseconds
	left := due(v.Remaining, v.Interval)
	if v.Interval.Sec > most || left.Sec > most || now.Sec > most {
		return at, false
	}
	nanoseconds := func(t snapshot.Timespec) uint64 { return uint64(t.Sec)*uint64(time.Second) + uint64(t.Nsec) }
	interval := nanoseconds(v.Interval)
	next := nanoseconds(now) + max(nanoseconds(left), min(interval, uint64(soon)))
	over, back := bits.Mul64(uint64(v.Overrun)+1, interval)
	if over != 0 || back >= next {
		return at, false
	}
	first := next - back
	return snapshot.Timespec{Sec: int64(first / uint64(time.Second)), Nsec: int64(first % uint64(time.Second))}, true
}

// takeOverrun adds the calls that start a timer in the past and take its signal where it goes.
func takeOverrun(t *apply.Task, v *snapshot.Timer, at snapshot.Timespec) {
	b := &t.Batch
	for _, th := range t.Threads {
		if v.Notify&sigevThreadID != 0 && th.TID.Inner() == v.Thread && th.Remote != nil {
			b = &th.Batch
		}
	}
	const patience = 1 // in seconds; it takes microseconds
	b.Do(fmt.Sprintf("timer_settime of timer %d", v.ID), unix.SYS_TIMER_SETTIME, apply.Num(v.ID), apply.Num(unix.TIMER_ABSTIME), timerBytes(v.Interval, at, 1), apply.Num(0))
	b.Try("rt_sigtimedwait", func(uint64, error) error { return nil },
		unix.SYS_RT_SIGTIMEDWAIT, apply.Words(1<<(v.Signal-1)), apply.Num(0), apply.Words(patience, 0), apply.Num(setSize))
	b.Try(fmt.Sprintf("timer_getoverrun of timer %d", v.ID), func(n uint64, err error) error {
		switch {
		case err != nil:
			return err
		case n < uint64(min(v.Overrun, math.MaxInt32)):
			// Of a time before the start of the machine the kernel makes the start of the machine.
			lost(t, v, "this machine has not been up for as long, or somebody has sent the process a signal")
			return nil
		}
		if t.Running == nil {
			t.Running = make(map[uint32]bool)
		}
		t.Running[v.ID] = true
		return nil
	}, unix.SYS_TIMER_GETOVERRUN, apply.Num(v.ID))
}
