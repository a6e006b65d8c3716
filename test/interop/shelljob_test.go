package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"stasis.example/internal/testkit"
)

// A job is taken away from one shell and given to another, on another terminal: it is in the foreground there, and the terminal
// has the settings that it had made.
func TestShellJobFourWays(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("job"))
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) { moveJob(t, w, " moved") })
	}
	// CRIU does not dump a job that is in the foreground at that moment.
	t.Run("foreground", func(t *testing.T) { moveJob(t, way{stasis, stasis}, "") })
}

func moveJob(t *testing.T, w way, args string) {
	_, terminal := testkit.OpenPTY(t)
	job := filepath.Join(testkit.SourceRoot(), "bin", "victims", "job") + args
	shell := testkit.VictimSpec{
		// Without job control a shell gives /dev/null to what it starts in the background.
		Name: "/bin/sh", Args: []string{"-c", "exec 3<&0; " + job + " <&3 3<&- & wait; exec sleep 1000 <&-"}, Stdin: terminal, Stdout: terminal, Stderr: terminal,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}
	v := shell.Start(t)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", v.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	images := t.TempDir()
	process := testkit.OpenProcess(t, pid)
	if output, err := command(t, w.dump, nil, "dump", "-t", fmt.Sprint(pid), "-D", t.TempDir()).CombinedOutput(); err == nil || w.dump == stasis && !strings.Contains(string(output), "shell") {
		t.Errorf("a shell job that is not dumped as one: %v\n%s", err, output)
	}
	if output, err := command(t, w.dump, nil, "dump", "-t", fmt.Sprint(pid), "-D", images, "-o", "dump.log", "-v4", "--shell-job").CombinedOutput(); err != nil {
		t.Fatalf("dump: %v\n%s\n%s", err, output, complaints(filepath.Join(images, "dump.log")))
	}
	if _, err := process.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)

	_, other := testkit.OpenPTY(t)
	restore := command(t, w.restore, nil, "restore", "-d", "-D", images, "-o", "restore.log", "-v4", "--shell-job")
	cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `"$@" && echo restored >>"$OUTPUT"; exec sleep 1000`, "sh", restore.Path}, restore.Args[1:]...)...)
	cmd.Env = append(restore.Env, "OUTPUT="+v.Output)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = other, other, other
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if line := v.NextLine(); line != "restored" {
		t.Fatalf("restore: %s\n%s", line, complaints(filepath.Join(images, "restore.log")))
	}
	restored := testkit.OpenProcess(t, pid)
	for fd, want := range map[int]string{0: other.Name(), 1: other.Name()} {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || link != want {
			t.Errorf("descriptor %d is %s, %v, want %s", fd, link, err, want)
		}
	}
	if err := restored.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if line := v.NextLine(); line != "ok" {
		t.Errorf("the restored job says %q", line)
	}
}
