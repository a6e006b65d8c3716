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
		p.Ask(func(b *collect.Batch) { interval(b, p.Task) })
		all, err := p.Dir.Timers()
		if err != nil {
			return err
		}
		p.Task.Timers = make([]snapshot.Timer, len(all))
		for i := range all {
			to, id := &p.Task.Timers[i], all[i].ID
			if *to, err = timer(&all[i]); err != nil {
				return fmt.Errorf("%s: %w", p.Where(), err)
			}
			p.Ask(func(b *collect.Batch) { posix(b, to, id) })
			if to.Clock == ownThread && len(p.Threads) > 1 {
				whose(t, p, to, id)
			}
		}
	}
	return nil
}

func interval(b *collect.Batch, task *snapshot.Task) {
	for i := range task.IntervalTimer {
		room := b.Room(timerSize)
		call := b.Call(unix.SYS_GETITIMER, uint64(i), room)
		b.Then(func(r *collect.Results) error {
			if _, err := r.Value(call); err != nil {
				return fmt.Errorf("getitimer: %w", err)
			}
			to := &task.IntervalTimer[i]
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

func posix(b *collect.Batch, to *snapshot.Timer, id int) {
	room := b.Room(timerSize)
	get := b.Call(unix.SYS_TIMER_GETTIME, uint64(id), room)
	overrun := b.Call(unix.SYS_TIMER_GETOVERRUN, uint64(id))
	b.Then(func(r *collect.Results) error {
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
		th.Ask(func(b *collect.Batch) {
			first, second := b.Room(timerSize), b.Room(timerSize)
			calls := [...]collect.CallID{
				b.Call(unix.SYS_TIMER_GETTIME, uint64(id), first), b.Call(unix.SYS_TIMER_GETTIME, uint64(id), second),
			}
			b.Then(func(r *collect.Results) error {
				for _, call := range calls {
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
		})
	}
}
