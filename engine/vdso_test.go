//go:build amd64

package engine

import (
	"bytes"
	"debug/elf"
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// A process whose vDSO is another kernel's gets this kernel's beside it, and finds it by the addresses that it has; so it does when
// it is dumped again, and restored in either way, and when CRIU restores it.
func TestRestoreWithOtherVDSO(t *testing.T) {
	for _, name := range []string{"clock", "counter", "tree", "threads"} {
		t.Run(name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram(name))
			victim := testkit.StartVictim(t, name)
			e := New()
			before := vdsoOf(t, victim.Pid)
			for cycle, other := range []bool{true, false, true, false} {
				images := t.TempDir()
				dumpAway(t, e, victim, images)
				if cycle == 3 {
					criuRestore(t, images)
				} else {
					e.otherVDSO = other
					if err := restoreFrom(t.Context(), e, images); err != nil {
						t.Fatal(err)
					}
				}
				victim.Restored()
				now := vdsoOf(t, victim.Pid)
				if moved := now != before; moved != other && cycle < 3 {
					t.Errorf("cycle %d: the vDSO was at %#x and is at %#x", cycle, before, now)
				}
				before = now
			}
			victim.MustVerify()
		})
	}
}

// A thread that stands where the jump to this kernel's code is written goes on, and no later call of anybody's is one of the old code.
func TestRestoreInFirstBytesOfVDSO(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("clock"))
	victim := testkit.StartVictim(t, "clock")
	stopInClock(t, victim)
	e := New()
	e.otherVDSO = true
	images := t.TempDir()
	dumpAway(t, e, victim, images)
	if err := restoreFrom(t.Context(), e, images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	if err := unix.Kill(victim.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	victim.MustVerify()
}

// stopInClock stops a process while its second thread is in the first bytes of the vDSO's clock_gettime.
func stopInClock(t *testing.T, victim *testkit.Victim) {
	t.Helper()
	own, err := ownVDSO()
	if err != nil || own == nil {
		t.Fatalf("this kernel's vDSO: %v, %v", own, err)
	}
	file, err := elf.NewFile(bytes.NewReader(own.Code))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := file.DynamicSymbols()
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "__vdso_clock_gettime" })
	if i < 0 {
		t.Fatalf("this kernel's vDSO has no clock_gettime: %v", err)
	}
	clock := vdsoOf(t, victim.Pid) + symbols[i].Value
	tids, err := proc.New(os.DirFS("/proc")).Process(victim.Pid).Threads()
	if err != nil || len(tids) != 2 {
		t.Fatalf("threads %v, %v", tids, err)
	}
	tid := tids[1]
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(tid); err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		t.Fatal(err)
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err != nil {
			t.Fatal(err)
		}
		var regs unix.PtraceRegs
		if err := unix.PtraceGetRegs(tid, &regs); err != nil {
			t.Fatal(err)
		}
		// It has made a step: a thread that is let go with a signal gets it only from where one was about to be delivered, which the
		// stop that was asked for is not (ptrace(2), PTRACE_DETACH).
		if status.TrapCause() == 0 && regs.Rip > clock && regs.Rip < clock+8 {
			break
		}
		if err := unix.PtraceSingleStep(tid); err != nil {
			t.Fatal(err)
		}
	}
	if err := New().kernel.Detach(tid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, "the process to stop", func() bool { return victim.State() == "TT" })
}

func vdsoOf(t *testing.T, pid int) uint64 {
	t.Helper()
	mappings, err := proc.New(os.DirFS("/proc")).Process(pid).Maps()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(mappings, func(m proc.Mapping) bool { return m.Path == "[vdso]" })
	if i < 0 {
		t.Fatalf("process %d has no vDSO", pid)
	}
	return mappings[i].Start
}
