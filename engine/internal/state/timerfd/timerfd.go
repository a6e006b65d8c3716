// Package timerfd is the state "timerfd files". In images they are entries of type TIMERFD in files.img.
//
//   - Collect: clock, unread expirations, flags, what is left and the interval are in fdinfo; one that stands still until it is
//     read is made to go on before.
//   - Apply: timerfd_create in the engine; timerfd_settime and then TFD_IOC_SET_TICKS for unread expirations come late, so that
//     little time is lost. What is left is relative; with TFD_TIMER_ABSTIME it is counted from the time it is now.
package timerfd

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Encode writes the files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for e, f := range to.FilesOf(from, entry.FDTypeTimerFD) {
		o := f.Object.(*snapshot.TimerFD)
		e.TFD = &entry.TimerFD{
			ID: e.ID, Flags: f.Flags, Fown: images.Fown(f), ClockID: o.Clock, Ticks: o.Ticks, SettimeFlags: o.SettimeFlags,
			Vsec: uint64(o.Remaining.Sec), Vnsec: uint64(o.Remaining.Nsec), Isec: uint64(o.Interval.Sec), Insec: uint64(o.Interval.Nsec),
		}
	}
}

// Decode reads the files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for e, f := range from.FilesOf(to, entry.FDTypeTimerFD) {
		if !images.Filled(e, e.TFD, func(m *entry.TimerFD) uint32 { return m.ID }, r) {
			continue
		}
		t := e.TFD
		where := images.FileName(e.ID)
		r.Unknown(where, t, t.Unknown)
		images.DecodeFile(e, f, t.Flags, &t.Fown, r)
		f.Object = &snapshot.TimerFD{
			Clock: t.ClockID, SettimeFlags: t.SettimeFlags, Ticks: t.Ticks,
			Interval: snapshot.Timespec{Sec: int64(t.Isec), Nsec: int64(t.Insec)}, Remaining: snapshot.Timespec{Sec: int64(t.Vsec), Nsec: int64(t.Vnsec)},
		}
		switch t.ClockID {
		case 0, 1, 7, 8, 9: // REALTIME, MONOTONIC, BOOTTIME, REALTIME_ALARM, BOOTTIME_ALARM
		default:
			r.Damaged(where, "there are no timers of clock %d", t.ClockID)
		}
		if t.Vsec > math.MaxInt64 || t.Isec > math.MaxInt64 || t.Vnsec >= 1e9 || t.Insec >= 1e9 {
			r.Damaged(where, "%d s %d ns and %d s %d ns are no times", t.Vsec, t.Vnsec, t.Isec, t.Insec)
		}
		if t.SettimeFlags&^3 != 0 {
			r.Damaged(where, "flags %#x of timerfd_settime", t.SettimeFlags)
		}
	}
}
