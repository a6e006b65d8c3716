//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/image"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

func dumpTo(t testing.TB, dir string, o DumpOptions) error {
	t.Helper()
	d, err := image.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o.Images = d
	return Dump(t.Context(), o)
}

// restoreByCRIU restores a directory with CRIU, in the background.
func restoreByCRIU(t testing.TB, dir string) {
	t.Helper()
	cmd := exec.Command(testkit.CRIUPath(t), "restore", "-d", "-D", dir, "-v4", "-o", "restore.log")
	if out, err := cmd.CombinedOutput(); err != nil {
		log, _ := os.ReadFile(dir + "/restore.log")
		t.Fatalf("criu restore: %v\n%s\n%s", err, out, tail(string(log), 12))
	}
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// victims of this engine: a process each, with what it can hold.
var victims = [][]string{
	{"counter"},
	{"blocked", "1", "1"},
	{"blocked", "16", "3", "6"},
	{"rseq"},
	{"signals"},
	{"threads"},
}

// TestDumpRestoredByCRIU dumps victims, lets CRIU restore them, and lets them check themselves.
func TestDumpRestoredByCRIU(t *testing.T) {
	for _, args := range victims {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram(args[0]))
			v := testkit.StartVictim(t, args[0], args[1:]...)
			dir := testkit.MemoryDir(t)
			if err := dumpTo(t, dir, DumpOptions{PID: v.Pid}); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Wait(); err != nil {
				t.Fatal(err)
			}
			restoreByCRIU(t, dir)
			v.Restored()
			v.MustVerify()
		})
	}
}

// TestDumpLeavesRunning dumps a victim again and again, and lets it check itself.
func TestDumpLeavesRunning(t *testing.T) {
	for _, args := range victims {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram(args[0]))
			v := testkit.StartVictim(t, args[0], args[1:]...)
			dir := testkit.MemoryDir(t)
			for range 10 {
				if err := dumpTo(t, dir, DumpOptions{PID: v.Pid, LeaveRunning: true}); err != nil {
					t.Fatal(err)
				}
			}
			v.MustVerify()
		})
	}
}

// TestDumpLeavesStopped dumps a victim and finds it stopped.
func TestDumpLeavesStopped(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	v := testkit.StartVictim(t, "counter")
	if err := dumpTo(t, testkit.MemoryDir(t), DumpOptions{PID: v.Pid, LeaveStopped: true}); err != nil {
		t.Fatal(err)
	}
	testkit.WaitFor(t, "the victim to be stopped", func() bool { return v.State() == "T" })
	if err := v.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	v.MustVerify()
}

// TestDumpRefuses has a victim with pipes, and wants all of them named at once and the victim unharmed.
func TestDumpRefuses(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("interrupted"))
	v := testkit.StartVictim(t, "interrupted", "read")
	err := dumpTo(t, testkit.MemoryDir(t), DumpOptions{PID: v.Pid})
	if !errors.Is(err, errors.ErrUnsupported) || strings.Count(fmt.Sprint(err), "pipe:[") != 2 {
		t.Errorf("dump of a process with a pipe: %v", err)
	}
	v.MustVerify()
}

// TestDumpFaults fails each call through the kernel's door once: the dump fails or not, the victim goes on.
func TestDumpFaults(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	v := testkit.StartVictim(t, "counter")
	injected := errors.New("injected")
	for last := 1; ; last++ {
		steps := 0
		kernel := &linux.Kernel{Step: func(string) error {
			if steps++; steps == last {
				return injected
			}
			return nil
		}}
		err := Dump(context.WithoutCancel(t.Context()), DumpOptions{PID: v.Pid, Images: image.NewMemDir(nil), LeaveRunning: true, kernel: kernel})
		if err != nil && !errors.Is(err, injected) {
			t.Fatalf("step %d: %v", last, err)
		}
		if line := v.Ask(); !strings.HasPrefix(line, "count ") {
			t.Fatalf("step %d: the victim says %q", last, line)
		}
		if steps < last {
			t.Logf("%d steps", steps)
			break
		}
	}
	v.MustVerify()
}
