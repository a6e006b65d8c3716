package criutest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

func needRoot(t testing.TB) {
	t.Helper()
	testkit.Need(t, testkit.Root)
}

// victim is a shell that counts the lines it is sent through a named pipe, and tells each new count.
type victim struct {
	*testkit.Victim
	pipe  string
	count int
}

// victimScript sleeps in read until it is sent a line; a line qN ends it with status N.
const victimScript = `exec 3<>pipe; echo ready; i=0
while read x <&3; do case $x in q*) exit ${x#q};; esac; i=$((i+1)); echo "count $i"; done`

func startVictim(t testing.TB) *victim {
	t.Helper()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	v := &victim{pipe: pipe}
	v.Victim = testkit.VictimSpec{Name: "/bin/sh", Args: []string{"-c", victimScript}, Dir: dir}.Start(t)
	v.lives(t)
	return v
}

func (v *victim) tell(t testing.TB, line string) {
	t.Helper()
	f, err := os.OpenFile(v.pipe, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("nobody reads the victim's pipe: %v", err)
	}
	defer f.Close()
	if _, err := f.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
}

// lives checks that the victim runs, and has forgotten nothing.
func (v *victim) lives(t testing.TB) {
	t.Helper()
	v.tell(t, "go on")
	v.count++
	if got, want := v.NextLine(), fmt.Sprintf("count %d", v.count); got != want {
		t.Fatalf("the victim says %q, want %q", got, want)
	}
}

// dumped checks that a dump has ended the victim, and makes its pid free.
func (v *victim) dumped(t testing.TB) {
	t.Helper()
	status, err := v.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("the dumped victim ended with %v", status)
	}
	v.free(t)
}

// free checks that nothing has the victim's pid.
func (v *victim) free(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", v.Pid)); err == nil {
		t.Fatalf("something has the victim's pid %d: state %s", v.Pid, v.State())
	}
}

// restored checks that the victim is back under its pid, and goes on counting.
func (v *victim) restored(t testing.TB, pid int) {
	t.Helper()
	if pid != v.Pid {
		t.Errorf("restored with the pid %d, want %d", pid, v.Pid)
	}
	v.Restored()
	v.lives(t)
}
