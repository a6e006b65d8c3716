//go:build amd64

package remote

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/testkit"
)

// Threads that do nothing but ask for the time are not left where they would not look again whether they have it right, but for one
// now and then that does not come to run, and for those that were seized early, and must not have run. Every tenth would be.
func TestLeavesClock(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("clock"))
	const visits = 150
	v := testkit.StartVictim(t, "clock", "2")
	for _, early := range []bool{false, true} {
		asking, left, understood := 0, 0, false
		for range visits {
			ran := processorTime(t, v.Pid)
			testkit.WaitFor(t, "the threads to run", func() bool { return processorTime(t, v.Pid)-ran > time.Millisecond })
			err := ptrace.Run(t.Context(), ptrace.Options{}, func(tr *ptrace.Tracer) error {
				p, err := freezeEarly(tr, v.Pid, early)
				if err != nil {
					return err
				}
				at := p.Threads[0].vdsoAt()
				code := p.Threads[0].vdso(at)
				understood = understood || slices.ContainsFunc(offsets(code), func(i int) bool { return looksAgain(code, i) })
				for _, th := range p.Threads[1:] {
					pc := th.Regs.PC()
					if pc < at || pc-at >= uint64(len(code)) || int64(th.Regs.Orig_rax) >= 0 {
						continue
					}
					if asking++; !looksAgain(code, int(pc-at)) {
						left++
					}
				}
				return p.Release()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("seized early: %v; of %d threads %d were asking, %d of these did not look again; the code is understood: %v", early, 2*visits, asking, left, understood)
		switch {
		case asking == 0:
			t.Error("no thread was asking")
		case understood && !early && left > asking/50:
			t.Errorf("%d threads of %d that were asking did not look again", left, asking)
		case understood && early && left == 0:
			t.Error("threads that were seized early have all been let run")
		}
	}
	v.MustVerify()
}

// processorTime is how long a process has run.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^uint32(pid)<<3|2), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// freezeEarly freezes a process whose threads are seized early, if they are to be.
func freezeEarly(tr *ptrace.Tracer, pid int, early bool) (*Process, error) {
	if early {
		tids, err := taskIDs(pid)
		if err != nil {
			return nil, err
		}
		for _, tid := range tids {
			if err := tr.SeizeEarly(tid); err != nil {
				return nil, err
			}
		}
	}
	return Freeze(tr, pid)
}

func offsets(code []byte) []int {
	all := make([]int, len(code))
	for i := range all {
		all[i] = i
	}
	return all
}

// An engine that is killed while a thread is let run on leaves it running.
func TestDeathInClock(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("clock"))
	v := testkit.StartVictim(t, "clock", "8")
	const steps = 60 // of which the first are those of the freeze
	for step := 1; step <= steps; step++ {
		diesAt(t, v.Pid, step)
	}
	v.MustVerify()
}

// What is behind the reading of the counter and well before the jump back looks again, and nothing else does.
func TestLooksAgain(t *testing.T) {
	const nop = 0x90
	code := bytes.Repeat([]byte{nop}, 300)
	copy(code[100:], []byte{0x0f, 0x01, 0xf9}) // rdtscp
	again := func(want ...int) {
		t.Helper()
		var got []int
		for i := range code {
			if looksAgain(code, i) {
				got = append(got, i)
			}
		}
		if len(want) == 2 {
			want = offsets(make([]byte, want[1]+1))[want[0]:]
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	again()
	copy(code[140:], []byte{0x75, 0x100 - 52}) // jne to 90
	again(103, 132)
	copy(code[140:], []byte{0x75, 0x100 - 20}) // jne to 122
	again()
	copy(code[140:], []byte{0x75, 10}) // jne to 152
	again()
	copy(code[140:], []byte{0x0f, 0x85, 0x100 - 56, 0xff, 0xff, 0xff}) // jne to 90, the long form
	again(103, 132)
	copy(code[100:], []byte{0x0f, 0x31, nop}) // rdtsc
	again(102, 132)
	copy(code[110:], []byte{0x0f, 0x31})                           // another, which the first jump does not go back behind
	copy(code[140:], []byte{0x75, 0x100 - 32, nop, nop, nop, nop}) // jne to 110
	again()
	again = nil
	for _, short := range [][]byte{nil, {0x75}, {0x0f, 0x31, 0x75}, {0x0f, 0x31, 0x0f, 0x85, 0}} {
		for i := range len(short) + 1 {
			if looksAgain(short, i) {
				t.Errorf("% x at %d", short, i)
			}
		}
	}
}
