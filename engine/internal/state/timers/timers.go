// Package timers is the state "timers of processes": those of setitimer and of timer_create. In images it is in core-PID.img.
// Timers that are files are in package timerfd.
//
//   - Collect: getitimer for the three and timer_gettime for those of /proc/PID/timers, in the batch of the first
//     thread; whose processor time a timer counts is found out by letting threads run. A timer that is at zero with an interval has expired while the process was stopped; its interval is what is left.
//   - Apply: PR_TIMER_CREATE_RESTORE_IDS where the kernel has it (6.15), otherwise timers are made and deleted until the
//     number comes; they are armed late, so that little time is lost. How often one has overrun when it went off last
//     (timer_getoverrun) is put back where it can be, see overruns.go; a restore by CRIU leaves it at 0.
package timers

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// maxTimers is how many timers a process may have here; the kernel's bound is RLIMIT_SIGPENDING.
const maxTimers = 1 << 20

// Bits of sigev_notify.
const (
	sigevSignal   = 0
	sigevNone     = 1
	sigevThread   = 2
	sigevThreadID = 4
)

// ownThread is the clock of the processor time of the thread that made the timer.
const ownThread = -2

// clockOf returns the number of the clock of a thread's processor time (MAKE_THREAD_CPUCLOCK).
func clockOf(tid int) int32 { return int32(^uint32(tid)<<3 | 6) }

// Encode writes the timers.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for p, t := range to.Alive(from) {
		e := &entry.TaskTimers{}
		for i, it := range []*entry.Itimer{&e.Real, &e.Virt, &e.Prof} {
			v := t.IntervalTimer[i]
			*it = entry.Itimer{
				Isec: uint64(v.Interval.Sec), Iusec: uint64(v.Interval.Nsec) / 1000,
				Vsec: uint64(v.Value.Sec), Vusec: uint64(v.Value.Nsec) / 1000,
			}
		}
		for _, v := range t.Timers {
			pt := entry.PosixTimer{
				ItID: v.ID, ClockID: uint32(v.Clock), SiSigno: v.Signal, ItSigevNotify: v.Notify, SivalPtr: v.Value, Overrun: v.Overrun,
				Isec: uint64(v.Interval.Sec), Insec: uint64(v.Interval.Nsec), Vsec: uint64(v.Remaining.Sec), Vnsec: uint64(v.Remaining.Nsec),
			}
			if v.Thread != 0 {
				pt.NotifyThreadID = new(int32(v.Thread))
			}
			e.Posix = append(e.Posix, pt)
		}
		p.TC().Timers = e
	}
}

// Decode reads the timers.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		e := p.TC().Timers
		if e == nil {
			r.Unsupported(p.Core(), "timers are missing; CRIU before 1.3 had them elsewhere")
			continue
		}
		d := decoder{r, p.Core()}
		r.Unknown(p.Core(), e, e.Unknown)
		for i, it := range []*entry.Itimer{&e.Real, &e.Virt, &e.Prof} {
			what := [3]string{"real", "virtual", "profiling"}[i]
			if it.Iusec >= 1e6 || it.Vusec >= 1e6 {
				r.Damaged(p.Core(), "the %s interval timer has %d and %d microseconds", what, it.Iusec, it.Vusec)
				continue
			}
			t.IntervalTimer[i] = snapshot.IntervalTimer{
				Interval: d.time(what, it.Isec, it.Iusec*1000), Value: d.time(what, it.Vsec, it.Vusec*1000),
			}
		}
		if len(e.Posix) > maxTimers {
			r.Damaged(p.Core(), "%d timers, at most %d are taken", len(e.Posix), maxTimers)
			continue
		}
		d.posix(t, e.Posix)
	}
}

type decoder struct {
	r     *images.Report
	where string
}

func (d decoder) time(what string, sec, nsec uint64) snapshot.Timespec {
	if sec > math.MaxInt64 || nsec >= 1e9 {
		d.r.Damaged(d.where, "timer %s: %d s and %d ns is no time", what, sec, nsec)
		return snapshot.Timespec{}
	}
	return snapshot.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

func (d decoder) posix(t *snapshot.Task, timers []entry.PosixTimer) {
	threads := make(map[int]bool, len(t.Threads))
	for _, thread := range t.Threads {
		threads[thread.TID.Inner()] = true
	}
	seen := make(map[uint32]bool, len(timers))
	for i := range timers {
		e := &timers[i]
		d.r.Unknown(d.where, e, e.Unknown)
		v := snapshot.Timer{ID: e.ItID, Clock: int32(e.ClockID), Notify: e.ItSigevNotify, Signal: e.SiSigno, Value: e.SivalPtr, Overrun: e.Overrun,
			Interval: d.time("of timer_create", e.Isec, e.Insec), Remaining: d.time("of timer_create", e.Vsec, e.Vnsec)}
		if e.NotifyThreadID != nil {
			v.Thread = int(*e.NotifyThreadID)
		}
		if seen[v.ID] {
			d.r.Damaged(d.where, "timer %d occurs twice", v.ID)
		}
		seen[v.ID] = true
		if v.ID > math.MaxInt32 {
			d.r.Damaged(d.where, "timer %d: no such number can be", v.ID)
		}
		switch v.Notify {
		case sigevNone:
		case sigevSignal, sigevThread, sigevSignal | sigevThreadID, sigevThread | sigevThreadID:
			if v.Signal < 1 || v.Signal > snapshot.NumSignals {
				d.r.Damaged(d.where, "timer %d: %d is no signal", v.ID, v.Signal)
			}
		default:
			d.r.Damaged(d.where, "timer %d: notification %d is not known", v.ID, v.Notify)
		}
		if v.Notify&sigevThreadID != 0 && !threads[v.Thread] {
			d.r.Damaged(d.where, "timer %d is for thread %d, which the process has not", v.ID, v.Thread)
		}
		t.Timers = append(t.Timers, v)
	}
}
