//go:build amd64

package timerfd

import (
	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the timerfd files.
func Collect(t *collect.Tree) error {
	for _, f := range t.Files.All {
		info := f.Info.TimerFD
		if f.Object != nil || f.FD < 0 || info == nil {
			continue
		}
		f.Object = &snapshot.TimerFD{
			Clock: uint32(info.ClockID), SettimeFlags: info.SettimeFlags, Ticks: info.Ticks,
			Interval:  snapshot.Timespec{Sec: info.Interval.Sec, Nsec: info.Interval.Nsec},
			Remaining: snapshot.Timespec{Sec: info.Value.Sec, Nsec: info.Value.Nsec},
		}
	}
	return nil
}
