//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// hierarchy finds where cgroups of a kind are mounted.
func hierarchy(kind string) (string, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 3 && (kind == "cgroup2" && f[2] == kind || f[2] == "cgroup" && strings.Contains(","+f[3]+",", ","+kind+",")) {
			return f[1], nil
		}
	}
	return "", testkit.Missing("no cgroup file system of the kind %s is mounted", kind)
}

func freezerHierarchy(kind string) testkit.Requirement {
	return testkit.Feature("cgroups of the kind "+kind, func() error {
		_, err := hierarchy(kind)
		return err
	})
}

// cgroupOf moves a victim into a cgroup of its own, and returns it.
func cgroupOf(t *testing.T, kind string, pid int) string {
	t.Helper()
	root, err := hierarchy(kind)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "stasis-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() { // the victim is still there, and may be frozen: it has to leave to be killed
			left, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for _, pid := range strings.Fields(string(left)) {
				_ = os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0)
			}
		}
		// A process that was killed is in there until it is reaped.
		testkit.WaitFor(t, "the cgroup to be empty", func() bool { return os.Remove(dir) == nil })
	})
	put(t, filepath.Join(dir, "cgroup.procs"), fmt.Sprint(pid))
	return dir
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// A tree is stopped by its freezer cgroup, of either version, and the cgroup is as before in the end: whatever the fate of the
// tree, and whatever fails.
func TestFreezeByCgroup(t *testing.T) {
	for _, kind := range []struct {
		name    string
		state   string
		on, off string
	}{
		{"freezer", "freezer.state", "FROZEN", "THAWED"},
		{"cgroup2", "cgroup.freeze", "1", "0"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("tree"), freezerHierarchy(kind.name))
			victim := testkit.VictimSpec{Name: "counter"}.Start(t)
			dir := cgroupOf(t, kind.name, victim.Pid)
			state := func() string {
				text, err := os.ReadFile(filepath.Join(dir, kind.state))
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(string(text))
			}
			byCgroup := func(o *criu.DumpOptions) { o.LeaveRunning, o.FreezeCgroup = true, dir }
			if err := dumpTo(t, New(), t.TempDir(), victim.Pid, byCgroup); err != nil {
				t.Fatal(err)
			}
			if got := state(); got != kind.off {
				t.Errorf("the cgroup is %s after a dump", got)
			}
			refusal := errors.New("no")
			err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) {
				byCgroup(o)
				o.Notify = func(_ context.Context, n *criu.Event) error {
					if n.Name == "post-dump" {
						return refusal
					}
					return nil
				}
			})
			if got := state(); !errors.Is(err, refusal) || got != kind.off {
				t.Errorf("a dump that is refused: %v, the cgroup is %s", err, got)
			}
			// Somebody had frozen it before: nothing runs, and it stays so.
			put(t, filepath.Join(dir, kind.state), kind.on)
			before := cpuTime(t, victim.Pid)
			if err := dumpTo(t, New(), t.TempDir(), victim.Pid, byCgroup); err != nil {
				t.Error(err)
			}
			testkit.WaitFor(t, "the cgroup to be frozen again", func() bool { return state() == kind.on })
			if after := cpuTime(t, victim.Pid); after != before {
				t.Errorf("a victim that was frozen has run: %d, %d", before, after)
			}
			put(t, filepath.Join(dir, kind.state), kind.off)
			victim.MustVerify()
		})
	}
}

// cpuTime is how long a process was in user mode, in ticks.
func cpuTime(t *testing.T, pid int) (ticks int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	if _, err := fmt.Sscan(strings.Fields(rest)[11], &ticks); err != nil {
		t.Fatal(err)
	}
	return ticks
}

// A cgroup stops a whole tree, and lets it go wherever a dump breaks off.
func TestFreezeByCgroupFailsAnywhere(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("tree"), freezerHierarchy("freezer"))
	victim := testkit.StartVictim(t, "threads")
	dir := cgroupOf(t, "freezer", victim.Pid)
	steps := 0
	for n := 1; ; n++ {
		e, count := New(), 0
		e.kernel.Step = func(call string) error {
			if count++; count == n {
				return unix.EIO
			}
			return nil
		}
		err := dumpTo(t, e, t.TempDir(), victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning, o.FreezeCgroup = true, dir })
		text, readErr := os.ReadFile(filepath.Join(dir, "freezer.state"))
		if readErr != nil || strings.TrimSpace(string(text)) != "THAWED" {
			t.Fatalf("step %d: the cgroup is %q after %v", n, text, err)
		}
		if count < n {
			steps = n - 1
			break
		}
		if n > 60 {
			n += 40 // the rest is as without a cgroup
		}
	}
	t.Logf("%d steps", steps)
	victim.MustVerify()
}

func TestFreezerCgroupsThatAreNone(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"), freezerHierarchy("freezer"))
	victim := testkit.StartVictim(t, "counter")
	other := testkit.StartVictim(t, "counter")
	dir := cgroupOf(t, "freezer", other.Pid)
	for path, want := range map[string]string{
		t.TempDir(): "is no freezer cgroup", filepath.Join(t.TempDir(), "missing"): "is no freezer cgroup", dir: "is not in the freezer cgroup",
	} {
		err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning, o.FreezeCgroup = true, path })
		if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	victim.MustVerify()
	other.MustVerify()
}

// Control groups are not saved, which is said, or refused where somebody wants them saved.
func TestControlGroupsAreNotSaved(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"), freezerHierarchy("freezer"))
	victim := testkit.StartVictim(t, "counter")
	name := filepath.Base(cgroupOf(t, "freezer", victim.Pid))
	dump := func(mode criu.CgroupMode) (log string, err error) {
		images := t.TempDir()
		err = dumpTo(t, New(), images, victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning, o.ManageCgroupsMode = true, mode })
		text, readErr := os.ReadFile(filepath.Join(images, "dump.log"))
		if readErr != nil {
			t.Fatal(readErr)
		}
		return string(text), err
	}
	const said = "which is not saved"
	if log, err := dump(""); err != nil || !strings.Contains(log, "Warn  (dump): ") || !strings.Contains(log, name+", "+said) {
		t.Errorf("%v\n%s", err, log)
	}
	if log, err := dump(criu.CgroupModeIgnore); err != nil || strings.Contains(log, said) {
		t.Errorf("ignored: %v\n%s", err, log)
	}
	if _, err := dump(criu.CgroupModeSoft); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), name+", which cannot be saved; --manage-cgroups=ignore") {
		t.Errorf("to be saved: %v", err)
	}
	victim.MustVerify()
}
