//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/image"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// The worker is this test program, started again to restore and to die in the middle of it.
const (
	envImages = "STASIS_RESTORE_IMAGES"
	envStep   = "STASIS_RESTORE_STEP"
)

func TestMain(m *testing.M) {
	if pid, err := strconv.Atoi(os.Getenv(envDump)); err == nil {
		os.Exit(dumpWorker(pid))
	}
	if dir := os.Getenv(envImages); dir != "" {
		os.Exit(restoreWorker(dir))
	}
	testkit.Main(m)
}

func restoreWorker(dir string) int {
	d, err := image.OpenDir(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	last, _ := strconv.Atoi(os.Getenv(envStep))
	steps := 0
	kernel := &linux.Kernel{Step: func(string) error {
		if steps++; steps == last {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // it does not come back
		}
		return nil
	}}
	if _, err := Restore(context.Background(), RestoreOptions{Images: d, kernel: kernel}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// dumped returns the images of a victim that is no more.
func dumped(t *testing.T, args ...string) (*testkit.Victim, string) {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.VictimProgram(args[0]))
	v := testkit.StartVictim(t, args[0], args[1:]...)
	dir := testkit.MemoryDir(t)
	if err := dumpTo(t, dir, DumpOptions{PID: v.Pid}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	return v, dir
}

// TestRestoreFaults fails each call through the kernel's door: the restore succeeds all the same, or fails and leaves no
// process behind.
func TestRestoreFaults(t *testing.T) {
	v, dir := dumped(t, "blocked", "1", "3", "6")
	d, err := image.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	injected := errors.New("injected")
	for last := 1; ; last++ {
		steps := 0
		kernel := &linux.Kernel{Step: func(string) error {
			if steps++; steps == last {
				return injected
			}
			return nil
		}}
		_, err := Restore(t.Context(), RestoreOptions{Images: d, kernel: kernel})
		if err != nil {
			if !errors.Is(err, injected) {
				t.Fatalf("step %d: %v", last, err)
			}
			if err := unix.Kill(v.Pid, 0); !errors.Is(err, unix.ESRCH) {
				st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.Pid))
				t.Fatalf("step %d: after a failed restore process %d is there: %v %s", last, v.Pid, err, st)
			}
			continue
		}
		v.Restored()
		if steps < last {
			t.Logf("%d steps", steps)
			break
		}
		if err := v.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	v.MustVerify()
}

// TestRestoreDeath kills the engine at every step of a restore: nothing that is half made survives it.
func TestRestoreDeath(t *testing.T) {
	v, dir := dumped(t, "blocked", "1", "3", "6")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	for ; ; step += 7 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), envImages+"="+dir, fmt.Sprintf("%s=%d", envStep, step))
		cmd.Stderr = os.Stderr
		err := cmd.Run()
		if err == nil {
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatal(err)
		}
		testkit.WaitFor(t, fmt.Sprintf("what was made to be gone, after a death at step %d", step), func() bool {
			return errors.Is(unix.Kill(v.Pid, 0), unix.ESRCH)
		})
	}
	t.Logf("%d steps", step)
	v.Restored()
	v.MustVerify()
}

// TestRestorePIDTaken wants a pid that somebody has.
func TestRestorePIDTaken(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	v := testkit.StartVictim(t, "counter")
	dir := testkit.MemoryDir(t)
	if err := dumpTo(t, dir, DumpOptions{PID: v.Pid, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := restoreFrom(t, dir); !errors.Is(err, unix.EEXIST) {
		t.Errorf("restore of a process that is there: %v", err)
	}
	v.MustVerify()
}

// TestCycles dumps and restores a process again and again; /proc must show the same each time.
func TestCycles(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	v := testkit.StartVictim(t, "blocked", "1", "3", "6")
	var before string
	for cycle := range 20 {
		dir := testkit.MemoryDir(t)
		if err := dumpTo(t, dir, DumpOptions{PID: v.Pid}); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreFrom(t, dir); err != nil {
			t.Fatal(err)
		}
		v.Restored()
		now := aspects(t, v.Pid)
		if cycle == 0 {
			before = now
		} else if now != before {
			t.Fatalf("cycle %d: before:\n%s\nafter:\n%s", cycle, before, now)
		}
	}
	v.MustVerify()
}

// aspects is what /proc tells of a process and what must not change.
func aspects(t *testing.T, pid int) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"maps", "limits", "cmdline", "environ", "auxv", "comm", "oom_score_adj", "personality", "timerslack_ns", "cgroup"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %q\n", name, data)
	}
	for _, name := range []string{"exe", "cwd", "root", "fd/0", "fd/1", "fd/2"} {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, link)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		switch key, _, _ := strings.Cut(line, ":"); key {
		case "Name", "Umask", "Uid", "Gid", "Groups", "Threads", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Cpus_allowed":
			b.WriteString(line)
		}
	}
	return b.String()
}
