//go:build amd64

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/origin"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// On a machine that was started later the clocks go on where they were, in a time namespace; so they do when the process is dumped from
// that, by either program, and restored again.
func TestClocksGoOn(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("clock"))
	// CRIU may dump a thread in the middle of reading the clock, which makes one time wrong.
	victim := testkit.StartVictim(t, "clock", "1", "2")
	const ahead = 100000 * time.Second
	before := seen(t, victim.Pid)
	for cycle, byCRIU := range []struct{ dump, restore bool }{{false, false}, {false, false}, {true, false}, {false, true}, {true, false}} {
		images := t.TempDir()
		if byCRIU.dump {
			criuDump(t, images, victim.Pid)
		} else if err := dumpTo(t, New(), images, victim.Pid, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := victim.Wait(); err != nil {
			t.Fatal(err)
		}
		if cycle == 0 {
			startedEarlier(t, images, ahead)
			before = before.Add(ahead)
		}
		testkit.AwaitFreeIDs(t, images)
		if byCRIU.restore {
			criuRestore(t, images)
		} else if err := restoreFrom(t.Context(), New(), images); err != nil {
			t.Fatal(err)
		}
		victim.Restored()
		now := seen(t, victim.Pid)
		if passed := now.Sub(before); passed < 0 || passed > time.Minute {
			t.Errorf("cycle %d: the clock went on by %v", cycle, passed)
		}
		before = now
	}
	victim.MustVerify()
}

// seen returns CLOCK_MONOTONIC as a process sees it.
func seen(t *testing.T, pid int) snapshot.Timespec {
	t.Helper()
	offsets, err := proc.New(os.DirFS("/proc")).Process(pid).TimeOffsets()
	if err != nil {
		t.Fatal(err)
	}
	now, err := origin.Clocks()
	if err != nil {
		t.Fatal(err)
	}
	return now.Monotonic.Add(offsets.Monotonic)
}

// startedEarlier makes images those of a machine that was started so much earlier.
func startedEarlier(t *testing.T, images string, by time.Duration) {
	t.Helper()
	dir, err := image.OpenDir(images)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var clocks entry.TimeNS
	if err := image.ReadOne(dir, image.TimeNS, 0, &clocks); err != nil {
		t.Fatal(err)
	}
	clocks.Monotonic.TvSec += uint64(by / time.Second)
	clocks.Boottime.TvSec += uint64(by / time.Second)
	if err := image.WriteAll(dir, image.TimeNS, 0, &clocks); err != nil {
		t.Fatal(err)
	}
}

func criuDump(t *testing.T, images string, pid int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testkit.CRIUPath(t), "dump", "-t", strconv.Itoa(pid), "-D", images, "-o", "dump.log", "-v4")
	if output, err := cmd.CombinedOutput(); err != nil {
		text, _ := os.ReadFile(filepath.Join(images, "dump.log"))
		t.Fatalf("criu dump: %v\n%s%s", err, output, text)
	}
}
