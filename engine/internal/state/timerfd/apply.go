//go:build amd64

package timerfd

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Open makes a timerfd that is off.
func Open(o *snapshot.TimerFD) (*apply.File, error) {
	fd, err := unix.TimerfdCreate(int(o.Clock), unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create(%d): %w", o.Clock, err)
	}
	return apply.NewFile(fd), nil
}

// Arm starts all timers of a tree. It comes last, so that no time is lost: what is left is counted from now.
func Arm(t *apply.Tree) error {
	for _, f := range t.Snapshot.Files {
		o, ok := f.Object.(*snapshot.TimerFD)
		if !ok {
			continue
		}
		if file := t.Files.Ours(f.ID); file != nil {
			if err := arm(t, int(file.Fd()), o); err != nil {
				return fmt.Errorf("file %d, a timerfd: %w", f.ID, err)
			}
		}
	}
	return nil
}

func arm(t *apply.Tree, fd int, o *snapshot.TimerFD) error {
	first, interval := timespec(o.Remaining), timespec(o.Interval)
	if o.Remaining.IsZero() && o.Ticks > 0 {
		// It has expired and was not read, and the kernel does not start it before it is. With an interval it goes on.
		first = interval
	}
	flags := int(o.SettimeFlags)
	if flags&unix.TFD_TIMER_ABSTIME != 0 && first != (unix.Timespec{}) {
		var now unix.Timespec
		if err := unix.ClockGettime(clock(o.Clock), &now); err != nil {
			return fmt.Errorf("clock_gettime(%d): %w", o.Clock, err)
		}
		first = unix.NsecToTimespec(now.Nano() + first.Nano())
	}
	if first != (unix.Timespec{}) || interval != (unix.Timespec{}) || flags != 0 {
		if err := unix.TimerfdSettime(fd, flags, &unix.ItimerSpec{Value: first, Interval: interval}, nil); err != nil {
			return fmt.Errorf("timerfd_settime: %w", err)
		}
	}
	if o.Ticks > 0 {
		// After the timer, which starts to count from nothing when it is set.
		if err := t.Kernel.SetTimerTicks(fd, o.Ticks); err != nil {
			return fmt.Errorf("%d expirations that were not read: %w", o.Ticks, err)
		}
	}
	return nil
}

// clock returns the clock that an alarm timer's time is read from: clocks for alarms cannot be read on machines without an alarm.
func clock(id uint32) int32 {
	switch id {
	case unix.CLOCK_REALTIME_ALARM:
		return unix.CLOCK_REALTIME
	case unix.CLOCK_BOOTTIME_ALARM:
		return unix.CLOCK_BOOTTIME
	}
	return int32(id)
}

func timespec(t snapshot.Timespec) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: t.Nsec} }
