//go:build amd64

package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// dumpSpawns dumps, some times, a tree that starts programs all the while: whoever waits in vfork is waited for. It is in order after
// the dumps, and after a restore.
func dumpSpawns(t *testing.T, victim *testkit.Victim, dumps int, change func(*criu.DumpOptions)) {
	t.Helper()
	images := t.TempDir()
	for range dumps {
		err := dumpTo(t, New(), images, victim.Pid, func(o *criu.DumpOptions) {
			o.LeaveRunning = true
			change(o)
		})
		if err != nil {
			t.Error(err)
			break
		}
	}
	before := churnRounds(t, victim)
	testkit.WaitFor(t, "both threads to go round", func() bool { return grown(before, churnRounds(t, victim)) })
}

func TestDumpOfSpawns(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("spawns"))
	victim := testkit.StartVictim(t, "spawns")
	dumpSpawns(t, victim, 200, func(*criu.DumpOptions) {})
	for range 5 {
		images := t.TempDir()
		dumpAway(t, New(), victim, images)
		if err := restoreFrom(t.Context(), New(), images); err != nil {
			t.Fatal(err)
		}
		victim.Restored()
	}
	victim.MustVerify()
}

// A freezer cgroup stops children of vfork too, for whose programs their parents wait.
func TestDumpOfSpawnsByCgroup(t *testing.T) {
	for _, kind := range []string{"freezer", "cgroup2"} {
		t.Run(kind, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("spawns"), freezerHierarchy(kind))
			victim := testkit.StartVictim(t, "spawns")
			dir := cgroupOf(t, kind, victim.Pid)
			dumpSpawns(t, victim, 50, func(o *criu.DumpOptions) { o.FreezeCgroup = dir })
			victim.MustVerify()
		})
	}
}

// Who waits in vfork for a child that executes nothing cannot be stopped. The dump says so, soon, and the tree goes on running.
func TestDumpOfVFork(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("spawns"))
	victim := testkit.StartVictim(t, "spawns", "stay")
	children, err := proc.New(linux.Proc{}).Thread(victim.Pid, victim.Pid).Children()
	if err != nil || len(children) != 1 {
		t.Fatalf("children %v, %v", children, err)
	}
	began := time.Now()
	err = dumpTo(t, New(), t.TempDir(), victim.Pid, nil)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the dump took %v", took)
	}
	if want := fmt.Sprintf("it waits in vfork for process %d", children[0]); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the dump: %v, want %q", err, want)
	}
	if err := unix.Kill(children[0], unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	victim.MustVerify()
}
