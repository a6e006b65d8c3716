//go:build amd64

package timerfd

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

func TestArm(t *testing.T) {
	const hour = 3600
	far := snapshot.Timespec{Sec: hour, Nsec: 5}
	for _, tc := range []struct {
		name string
		o    snapshot.TimerFD
		left int64 // seconds at most, 0 for off
	}{
		{"off", snapshot.TimerFD{Clock: unix.CLOCK_MONOTONIC}, 0},
		{"once", snapshot.TimerFD{Clock: unix.CLOCK_MONOTONIC, Remaining: far}, hour},
		{"again and again", snapshot.TimerFD{Clock: unix.CLOCK_BOOTTIME, Remaining: far, Interval: snapshot.Timespec{Sec: 7}}, hour},
		{"absolute", snapshot.TimerFD{Clock: unix.CLOCK_REALTIME, SettimeFlags: unix.TFD_TIMER_ABSTIME | unix.TFD_TIMER_CANCEL_ON_SET, Remaining: far}, hour},
		{"expired", snapshot.TimerFD{Clock: unix.CLOCK_MONOTONIC, Ticks: 1}, 0},
		{"expired often", snapshot.TimerFD{Clock: unix.CLOCK_MONOTONIC, Ticks: 1 << 40, Remaining: far, Interval: far}, hour},
		{"expired, and stands still", snapshot.TimerFD{Clock: unix.CLOCK_MONOTONIC, Ticks: 3, Interval: far}, hour},
		{"off, with an interval", snapshot.TimerFD{Clock: unix.CLOCK_MONOTONIC, Interval: far}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file, err := Open(&tc.o)
			if err != nil {
				t.Fatal(err)
			}
			files := new(apply.Files)
			defer files.Close()
			files.Add(1, file)
			if err := apply.SetFlags(int(file.Fd()), unix.O_NONBLOCK); err != nil {
				t.Fatal(err)
			}
			tree := &apply.Tree{Kernel: &linux.Kernel{}, Files: files, Snapshot: &snapshot.Tree{Files: []*snapshot.File{{ID: 1, Object: &tc.o}}}}
			if err := Arm(tree); err != nil {
				t.Fatal(err)
			}
			info, err := proc.New(os.DirFS("/proc")).Process(os.Getpid()).FDInfo(int(file.Fd()))
			if err != nil || info.TimerFD == nil {
				t.Fatalf("%+v, %v", info, err)
			}
			got := info.TimerFD
			if got.Ticks != tc.o.Ticks || got.SettimeFlags != tc.o.SettimeFlags || got.Interval.Sec != tc.o.Interval.Sec {
				t.Errorf("%+v, want %+v", got, tc.o)
			}
			if got.Value.Sec > tc.left || tc.left > 0 && got.Value.Sec < tc.left-60 {
				t.Errorf("%d s are left, want %d", got.Value.Sec, tc.left)
			}
			buf := make([]byte, 8)
			_, err = unix.Read(int(file.Fd()), buf)
			if tc.o.Ticks == 0 && !errors.Is(err, unix.EAGAIN) || tc.o.Ticks > 0 && (err != nil || binary.LittleEndian.Uint64(buf) != tc.o.Ticks) {
				t.Errorf("read %x, %v", buf, err)
			}
		})
	}
}
