//go:build amd64

package timers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/internal/testkit"
)

func span(d time.Duration) snapshot.Timespec { return snapshot.Timespec{}.Add(d) }

// A timer starts so long ago that as many intervals have passed, and that it goes off next when it is to.
func TestSince(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name                string
		now, interval, left time.Duration
		overrun             uint32
		want                time.Duration // 0 for none
	}{
		{"once", time.Hour, time.Minute, time.Second, 1, time.Hour + time.Second - 2*time.Minute},
		{"often", time.Hour, ms * 10, ms * 5, 9, time.Hour - 95*ms},
		{"off while it was looked at", time.Hour, time.Minute, 0, 1, time.Hour - time.Minute},
		{"nearly", time.Hour, time.Minute, 1, 1, time.Hour + soon - 2*time.Minute},
		{"nearly always", time.Hour, ms, 1, 1, time.Hour - ms},
		{"just at zero", time.Minute, time.Minute, time.Minute, 1, 0},
		{"just after zero", time.Minute + 1, time.Minute, time.Minute, 1, 1},
		{"before zero", time.Minute, time.Minute, time.Second, 1, 0},
		{"most", math.MaxInt32 * time.Microsecond, time.Microsecond, 1, math.MaxInt32, 0},
		{"most, since zero", (math.MaxInt32 + 1) * time.Microsecond, time.Microsecond, 1, math.MaxInt32, time.Microsecond},
		{"too many", time.Hour, 1000 * time.Hour, time.Second, math.MaxUint32, 0},
	} {
		v := &snapshot.Timer{Interval: span(tc.interval), Remaining: span(tc.left), Overrun: tc.overrun}
		at, ok := since(span(tc.now), v)
		if ok != (tc.want != 0) || at != span(tc.want) {
			t.Errorf("%s: %v, %v, want %v", tc.name, at, ok, span(tc.want))
		}
	}
	for _, far := range []snapshot.Timer{{Interval: snapshot.Timespec{Sec: math.MaxInt64}}, {Interval: span(1), Remaining: snapshot.Timespec{Sec: math.MaxInt64}}} {
		far.Overrun = 1
		if at, ok := since(span(time.Hour), &far); ok {
			t.Errorf("%+v: %v", far, at)
		}
	}
}

// What cannot be put back is said, and why; what there is none of is not spoken of.
func TestOverrunThatIsLost(t *testing.T) {
	good := snapshot.Timer{ID: 3, Clock: unix.CLOCK_MONOTONIC, Signal: 34, Interval: span(1), Overrun: 7}
	waiting := func(overrun uint32) (s snapshot.Siginfo) {
		code := int32(siTimer)
		binary.LittleEndian.PutUint32(s[0:], 34)
		binary.LittleEndian.PutUint32(s[8:], uint32(code))
		binary.LittleEndian.PutUint32(s[16:], 3)
		binary.LittleEndian.PutUint32(s[20:], overrun)
		return s
	}
	other := waiting(0)
	other[16] = 4
	for _, tc := range []struct {
		name            string
		change          func(*snapshot.Timer)
		process, thread []snapshot.Siginfo
		put             bool
		why             string // "" for nothing to be said
	}{
		{name: "good", put: true},
		{name: "for a thread", change: func(v *snapshot.Timer) { v.Notify = sigevThreadID }, put: true},
		{name: "none", change: func(v *snapshot.Timer) { v.Overrun = 0 }},
		{name: "goes off once", change: func(v *snapshot.Timer) { v.Interval = snapshot.Timespec{} }},
		{name: "no signal", change: func(v *snapshot.Timer) { v.Notify = sigevNone }},
		{name: "of the day", change: func(v *snapshot.Timer) { v.Clock = unix.CLOCK_REALTIME }, why: "follow whoever sets the clock"},
		{name: "of processor time", change: func(v *snapshot.Timer) { v.Clock = clockOf(5) }, why: "its clock"},
		{name: "alarm", change: func(v *snapshot.Timer) { v.Clock = unix.CLOCK_BOOTTIME_ALARM }, why: "its clock"},
		{name: "kills", change: func(v *snapshot.Timer) { v.Signal = uint32(unix.SIGKILL) }, why: "signal 9"},
		{name: "traps", change: func(v *snapshot.Timer) { v.Signal = uint32(unix.SIGTRAP) }, why: "signal 5"},
		{name: "stops", change: func(v *snapshot.Timer) { v.Signal = uint32(unix.SIGSTOP) }, why: "signal 19"},
		{name: "waits", process: []snapshot.Siginfo{waiting(0)}, why: "its signal waits"},
		{name: "waits for a thread", thread: []snapshot.Siginfo{waiting(0)}, why: "its signal waits"},
		{name: "waits again", process: []snapshot.Siginfo{waiting(7)}, put: true},
		{name: "another waits", process: []snapshot.Siginfo{other}, thread: []snapshot.Siginfo{{34}}, put: true},
	} {
		v := good
		if tc.change != nil {
			tc.change(&v)
		}
		said := ""
		tree := &apply.Tree{Note: func(format string, args ...any) { said += fmt.Sprintf(format, args...) }}
		task := &apply.Task{Task: &snapshot.Task{PID: snapshot.PID{5}, Timers: []snapshot.Timer{v}, Pending: tc.process}, Tree: tree}
		task.Threads = []*apply.Thread{{Thread: &snapshot.Thread{TID: snapshot.PID{5}, Pending: tc.thread}, Task: task}}
		if got := len(overrun(task)) == 1; got != tc.put {
			t.Errorf("%s: put back: %v", tc.name, got)
		}
		if !strings.Contains(said, tc.why) || (tc.why == "") != (said == "") {
			t.Errorf("%s: said %q", tc.name, said)
		}
	}
}

// A timer that is started in the past has overrun as often as before, nothing waits, and it runs on. So does one for which the
// clock is too young, or would be but for its time namespace; that is said.
func TestOverruns(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const left, ages = 50 * time.Millisecond, 100000000 * time.Second
	timers := []snapshot.Timer{
		{ID: 0, Clock: unix.CLOCK_MONOTONIC, Signal: 34, Interval: span(time.Second), Remaining: span(left), Overrun: 5},
		{ID: 1, Clock: unix.CLOCK_BOOTTIME, Signal: 35, Notify: sigevThreadID, Interval: span(time.Second), Remaining: span(left), Overrun: 4},
		{ID: 2, Clock: unix.CLOCK_TAI, Signal: 36, Interval: span(time.Millisecond), Remaining: span(1), Overrun: math.MaxUint32},
		{ID: 3, Clock: unix.CLOCK_MONOTONIC, Signal: 37, Interval: span(ages), Remaining: span(left), Overrun: 100},
		{ID: 4, Clock: unix.CLOCK_MONOTONIC, Signal: 38, Interval: span(ages), Remaining: span(left), Overrun: 2},
	}
	least := []uint64{5, 4, math.MaxInt32, 0, 0}
	got, signals := make([]uint64, len(timers)), make([]uint64, len(timers))
	said := ""
	note := func(format string, args ...any) { said += fmt.Sprintf(format+"\n", args...) }
	err := ptrace.Run(t.Context(), ptrace.Options{ExitKill: true}, func(tr *ptrace.Tracer) error {
		ahead := unix.NsecToTimespec(int64(10 * ages))
		if err := tr.Kernel().EnterTimeNamespace(ahead, ahead); err != nil {
			return err
		}
		const base = 0x10000000
		p, err := stub.Start(tr, &stub.Layout{Area: snapshot.Range{Start: base, End: base + stub.AreaSize}, FirstFile: 30})
		if err != nil {
			return err
		}
		timers[1].Thread = p.PID
		task := &apply.Task{Task: &snapshot.Task{PID: snapshot.PID{p.PID}, Timers: timers}, Tree: &apply.Tree{Note: note}, Remote: p}
		task.Threads = []*apply.Thread{{Thread: &snapshot.Thread{TID: snapshot.PID{p.PID}}, Task: task, Remote: p.Threads[0]}}
		err = errors.Join(Apply(task), Overruns(task), Arm(task.Threads[0]), task.Run())
		b := &task.Batch
		for i := range timers {
			b.Try("timer_getoverrun", func(n uint64, err error) error { got[i] = n; return err }, unix.SYS_TIMER_GETOVERRUN, apply.Num(i))
		}
		for i := range timers {
			b.Try("rt_sigtimedwait", func(n uint64, err error) error { signals[i] = n; return err },
				unix.SYS_RT_SIGTIMEDWAIT, apply.Words(1<<(timers[i].Signal-1)), apply.Num(0), apply.Words(20, 0), apply.Num(setSize))
		}
		if err == nil {
			err = task.Run()
		}
		return errors.Join(err, p.Destroy())
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range timers {
		if n := got[i]; n < least[i] || n > least[i]+1 {
			t.Errorf("timer %d has overrun %d times, want %d", i, n, least[i])
		}
		if signals[i] != uint64(timers[i].Signal) {
			t.Errorf("timer %d went off with signal %d", i, signals[i])
		}
	}
	for _, want := range []string{"timer 3 had overrun 100 times when it went off, which is not put back: the clock", "timer 4 had overrun 2 times when it went off, which is not put back: this machine"} {
		if !strings.Contains(said, want) || strings.Count(said, "\n") != 2 {
			t.Errorf("it says %q, not %q", said, want)
		}
	}
}
