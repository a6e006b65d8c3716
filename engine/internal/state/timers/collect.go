//go:build amd64

package timers

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

const timerSize = 32 // of a struct itimerval and of a struct itimerspec: interval, then value

// Collect asks for the timers.
func Collect(t *collect.Tree) error {
	for p := range t.Alive() {
		interval(p)
		all, err := p.Dir.Timers()
		if err != nil {
			return err
		}
		p.Task.Timers = make([]snapshot.Timer, len(all))
		for i := range all {
			posix(p, &p.Task.Timers[i], all[i].ID)
			if p.Task.Timers[i], err = timer(&all[i]); err != nil {
				return fmt.Errorf("%s: %w", p.Where(), err)
			}
			if p.Task.Timers[i].Clock == ownThread && len(p.Threads) > 1 {
				whose(t, p, &p.Task.Timers[i], all[i].ID)
			}
		}
	}
	return nil
}

func interval(p *collect.Process) {
	for i := range p.Task.IntervalTimer {
		room := p.Inside.Room(timerSize)
		call := p.Inside.Call(unix.SYS_GETITIMER, collect.Num(uint64(i)), room)
		p.Inside.Then(func(r *collect.Results) error {
			if _, err := r.Value(call); err != nil {
				return fmt.Errorf("getitimer: %w", err)
			}
			to := &p.Task.IntervalTimer[i]
			to.Interval, to.Value = times(r.Data(room, timerSize), 1000)
			return nil
		})
	}
}

// times reads interval and value. A timer that is at zero and has an interval has gone off while the process stood still, and
// goes off next when the interval is over.
func times(b []byte, scale int64) (interval, value snapshot.Timespec) {
	word := func(at int) int64 { return int64(collect.Word(b[at:])) }
	interval = snapshot.Timespec{Sec: word(0), Nsec: word(8) * scale}
	value = snapshot.Timespec{Sec: word(16), Nsec: word(24) * scale}
	if value.IsZero() {
		value = interval
	}
	return interval, value
}

// timer returns what /proc tells of a timer.
func timer(from *proc.Timer) (snapshot.Timer, error) {
	to := snapshot.Timer{ID: uint32(from.ID), Clock: int32(from.ClockID), Signal: uint32(from.Signal), Value: from.Value}
	switch from.Notify {
	case "signal":
		to.Notify = sigevSignal
	case "none":
		to.Notify = sigevNone
	case "thread":
		to.Notify = sigevThread
	default:
		return to, fmt.Errorf("timer %d notifies by %q, which is not known", from.ID, from.Notify)
	}
	if from.Thread {
		to.Notify |= sigevThreadID
		to.Thread = from.PID
	}
	return to, nil
}

func posix(p *collect.Process, to *snapshot.Timer, id int) {
	room := p.Inside.Room(timerSize)
	get := p.Inside.Call(unix.SYS_TIMER_GETTIME, collect.Num(uint64(id)), room)
	overrun := p.Inside.Call(unix.SYS_TIMER_GETOVERRUN, collect.Num(uint64(id)))
	p.Inside.Then(func(r *collect.Results) error {
		if _, err := r.Value(get); err != nil {
			return fmt.Errorf("timer_gettime of timer %d: %w", id, err)
		}
		n, err := r.Value(overrun)
		if err != nil {
			return fmt.Errorf("timer_getoverrun of timer %d: %w", id, err)
		}
		to.Overrun = uint32(n)
		to.Interval, to.Remaining = times(r.Data(room, timerSize), 1)
		return nil
	})
}

// whose finds out which thread's time a timer counts, which the kernel does not tell: time passes for it only while that thread
// runs, and one thread after the other makes its calls. The clock gets the number that names the thread.
func whose(t *collect.Tree, p *collect.Process, to *snapshot.Timer, id int) {
	for i, th := range p.Threads {
		first, second := th.Inside.Room(timerSize), th.Inside.Room(timerSize)
		a := th.Inside.Call(unix.SYS_TIMER_GETTIME, collect.Num(uint64(id)), first)
		b := th.Inside.Call(unix.SYS_TIMER_GETTIME, collect.Num(uint64(id)), second)
		th.Inside.Then(func(r *collect.Results) error {
			for _, call := range []collect.CallID{a, b} {
				if _, err := r.Value(call); err != nil {
					return fmt.Errorf("timer_gettime of timer %d: %w", id, err)
				}
			}
			_, before := times(r.Data(first, timerSize), 1)
			_, after := times(r.Data(second, timerSize), 1)
			if before != after {
				to.Clock = clockOf(th.Snapshot.TID.Inner())
			}
			if i == len(p.Threads)-1 && to.Clock == ownThread {
				t.Report.Unsupported(p.Where(), "timer %d counts the processor time of one of its threads, and is not armed: it cannot be told which", id)
			}
			return nil
		})
	}
}
