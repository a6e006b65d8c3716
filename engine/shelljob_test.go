//go:build amd64

package engine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// A job of a shell is restored by CRIU on another terminal.
func TestDumpOfShellJobIsRestoredByCRIU(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	_, terminal := testkit.OpenPTY(t)
	counter := filepath.Join(testkit.SourceRoot(), "bin", "victims", "counter")
	shell := testkit.VictimSpec{
		Name: "/bin/sh", Args: []string{"-c", counter + " & wait; read line"}, Stdin: terminal, Stdout: terminal, Stderr: terminal,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}.Start(t)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", shell.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	images := t.TempDir()
	if err := dumpTo(t, New(), images, pid, nil); err == nil || !strings.Contains(err.Error(), "shell_job") {
		t.Errorf("a shell job that is not dumped as one: %v", err)
	}
	job := testkit.OpenProcess(t, pid)
	if err := dumpTo(t, New(), images, pid, func(o *criu.DumpOptions) { o.ShellJob = true }); err != nil {
		t.Fatal(err)
	}
	if _, err := job.Wait(); err != nil {
		t.Fatal(err)
	}
	// The restored job belongs to the session and the terminal of whoever restores it.
	_, other := testkit.OpenPTY(t)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `"$0" restore -D "$1" -o restore.log -v4 -d --shell-job && echo restored >>"$2"; read line`,
		testkit.CRIUPath(t), images, shell.Output)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = other, other, other
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if line := shell.NextLine(); line != "restored" {
		text, _ := os.ReadFile(filepath.Join(images, "restore.log"))
		t.Fatalf("criu restore: %s\n%s", line, text)
	}
	restored := testkit.OpenProcess(t, pid)
	if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", pid)); err != nil || link != other.Name() {
		t.Errorf("the restored job's standard output is %s, %v, want %s", link, err, other.Name())
	}
	if err := restored.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if line := shell.NextLine(); line != "ok" {
		t.Errorf("the restored job says %q", line)
	}
}
