//go:build amd64

package timerfd

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

// Collect claims the timerfd files.
func Collect(t *collect.Tree) error {
	for _, f := range t.Files.All {
		if f.Object != nil || f.FD < 0 || f.Info.TimerFD == nil {
			continue
		}
		info, err := goneOn(f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Where(), err)
		}
		f.Object = &snapshot.TimerFD{
			Clock: uint32(info.ClockID), SettimeFlags: info.SettimeFlags, Ticks: info.Ticks,
			Interval:  snapshot.Timespec{Sec: info.Interval.Sec, Nsec: info.Interval.Nsec},
			Remaining: snapshot.Timespec{Sec: info.Value.Sec, Nsec: info.Value.Nsec},
		}
	}
	return nil
}

// goneOn returns what fdinfo says of a timer. One with an interval that has expired and was not read stands still for the kernel,
// which shows nothing left of it; to be asked for its time makes it go on, and nothing else.
func goneOn(f *collect.File) (*proc.TimerFD, error) {
	info := f.Info.TimerFD
	standsStill := info.Ticks > 0 && info.Value.Sec == 0 && info.Value.Nsec == 0 && (info.Interval.Sec != 0 || info.Interval.Nsec != 0)
	if !standsStill {
		return info, nil
	}
	fd, err := f.Take()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var left unix.ItimerSpec
	if err := unix.TimerfdGettime(fd, &left); err != nil {
		return nil, fmt.Errorf("timerfd_gettime: %w", err)
	}
	again, err := f.Dir.FDInfo(f.FD)
	if err != nil {
		return nil, err
	}
	if again.TimerFD == nil {
		return nil, errors.New("is no timerfd any more")
	}
	return again.TimerFD, nil
}
