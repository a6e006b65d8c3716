//go:build amd64

package engine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// victims are programs that check themselves.
var victims = []struct {
	name  string
	args  []string
	needs []testkit.Requirement
}{
	{name: "apart"},
	{name: "apart", args: []string{"shared"}},
	{name: "counter"},
	{name: "interrupted", args: []string{"pause"}},
	{name: "interrupted", args: []string{"read"}},
	{name: "interrupted", args: []string{"futex"}},
	{name: "interrupted", args: []string{"wait"}},
	{name: "interrupted", args: []string{"epoll"}},
	{name: "interrupted", args: []string{"sigwait"}},
	{name: "ghosts"},
	{name: "pipes"},
	{name: "python", needs: []testkit.Requirement{testkit.Python}},
	{name: "leaderless"},
	{name: "rseq"},
	{name: "sharing"},
	{name: "shell"},
	{name: "signals"},
	{name: "threads"},
	{name: "timers"},
	{name: "tree"},
	{name: "vmas"},
}

// refused are victims that have something that cannot be saved yet.
var refused = []struct {
	name  string
	args  []string
	needs []testkit.Requirement
	why   string
}{
	{name: "sharing", args: []string{"niece"}, why: "shares its descriptors with process"},
	{name: "mem", args: []string{"4"}, why: "shared memory cannot be saved yet"},
}

// A tree that is left running is as it was.
func TestDumpLeavesRunning(t *testing.T) {
	for _, v := range victims {
		t.Run(strings.Join(append([]string{v.name}, v.args...), "-"), func(t *testing.T) {
			testkit.Need(t, append(v.needs, testkit.Root, testkit.VictimProgram(v.name))...)
			victim := testkit.StartVictim(t, v.name, v.args...)
			for range 3 {
				err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning = true })
				if err != nil {
					t.Fatal(err)
				}
			}
			victim.MustVerify()
		})
	}
}

// A tree that has what cannot be saved is refused by name, and goes on running.
func TestDumpRefuses(t *testing.T) {
	for _, v := range refused {
		t.Run(strings.Join(append([]string{v.name}, v.args...), "-"), func(t *testing.T) {
			testkit.Need(t, append(v.needs, testkit.Root, testkit.VictimProgram(v.name))...)
			victim := testkit.StartVictim(t, v.name, v.args...)
			err := dumpTo(t, New(), t.TempDir(), victim.Pid, nil)
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), v.why) {
				t.Errorf("the dump: %v, want %q", err, v.why)
			}
			victim.MustVerify()
		})
	}
}

// dumpTo dumps a process to a directory.
func dumpTo(t *testing.T, e *Engine, images string, pid int, change func(*criu.DumpOptions)) error {
	t.Helper()
	o := criu.DumpOptions{ImagesDir: images, PID: pid, LogFile: "dump.log", LogLevel: 4}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	_, err := criu.New(e).Dump(ctx, o)
	return err
}

// criuRestore lets CRIU restore what is in a directory.
func criuRestore(t *testing.T, images string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testkit.CRIUPath(t), "restore", "-D", images, "-o", "restore.log", "-v4", "-d")
	output, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	text, readErr := os.ReadFile(filepath.Join(images, "restore.log"))
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") {
			lines = append(lines, line)
		}
	}
	t.Fatalf("criu restore: %v\n%s\n%s", errors.Join(err, readErr), output, strings.Join(lines, ""))
}
