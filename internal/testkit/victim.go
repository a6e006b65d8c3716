package testkit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Victim is a program made to be frozen: it says "ready" when it is set up and, asked with SIGUSR1, checks itself,
// says "ok" or "FAIL" and why, and exits with 0 or 1. test/victims/README.md describes the family.
//
// It runs in a session of its own, without a terminal, with standard input from /dev/null and its output in a file, so
// that nothing of it leads out of what a dump can hold.
type Victim struct {
	*Process
	// Name is the program's.
	Name string
	// Dir is its working directory, a fresh one unless VictimSpec chose.
	Dir string
	// Output is the file that it writes its lines to.
	Output string

	t    testing.TB
	seen int // bytes of Output that were looked at
}

// A VictimSpec says how a victim starts. The zero value of everything but Name will do.
type VictimSpec struct {
	// Name is a program in test/victims, or, with a slash, the path of any program.
	Name string
	Args []string
	// Dir is the working directory and where the output file goes, a fresh one if empty.
	Dir string
	// Env is added to the environment.
	Env []string
	// Stdin, Stdout and Stderr replace /dev/null and the output file. A victim whose lines are to go to the output file
	// all the same writes them to the path in the environment variable VICTIM_OUTPUT.
	Stdin, Stdout, Stderr *os.File
	// UID, where it is not root's, is the user, and the group, that the victim, its directory and its output belong to.
	UID int
	// SysProcAttr, where given, must set Setsid by itself.
	SysProcAttr *syscall.SysProcAttr
}

// StartVictim starts a program of test/victims and waits until it is ready. The test is skipped, as by Need, where the
// program was not built.
func StartVictim(t testing.TB, name string, args ...string) *Victim {
	t.Helper()
	return VictimSpec{Name: name, Args: args}.Start(t)
}

// Start starts the victim and waits until it is ready.
func (spec VictimSpec) Start(t testing.TB) *Victim {
	t.Helper()
	path := spec.Name
	if !strings.Contains(path, "/") {
		Need(t, VictimProgram(spec.Name))
		path = victimPath(spec.Name)
	}
	dir := spec.Dir
	switch {
	case dir != "":
	case spec.UID != 0:
		dir = UserDir(t, spec.UID)
	default:
		dir = t.TempDir()
	}
	v := &Victim{Name: filepath.Base(spec.Name), Dir: dir, t: t, Output: filepath.Join(dir, filepath.Base(spec.Name)+".out")}
	output, err := os.OpenFile(v.Output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	if spec.UID != 0 {
		if err := output.Chown(spec.UID, spec.UID); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, spec.Args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "VICTIM_OUTPUT="+v.Output)
	cmd.Env = append(cmd.Env, spec.Env...)
	cmd.Stdout, cmd.Stderr = output, output
	if spec.Stdin != nil { // a nil *os.File is not a nil Reader
		cmd.Stdin = spec.Stdin
	}
	if spec.Stdout != nil {
		cmd.Stdout = spec.Stdout
	}
	if spec.Stderr != nil {
		cmd.Stderr = spec.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if spec.SysProcAttr != nil {
		cmd.SysProcAttr = spec.SysProcAttr
	}
	if spec.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(spec.UID), Gid: uint32(spec.UID)}
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the victim %s: %v", v.Name, err)
	}
	v.Process = OpenProcess(t, cmd.Process.Pid)
	if err := cmd.Process.Release(); err != nil { // Process waits for it
		t.Fatal(err)
	}
	if line := v.NextLine(); line != "ready" {
		t.Fatalf("the victim %s said %q before it was ready", v.Name, line)
	}
	return v
}

// Restored takes hold of the process that a restore has brought back under the victim's pid, or of the one with the pid
// given, and goes on where the output was left.
func (v *Victim) Restored(pid ...int) {
	v.t.Helper()
	restored := v.Pid
	if len(pid) > 0 {
		restored = pid[0]
	}
	v.Process = OpenProcess(v.t, restored)
}

// Verify asks the victim to check itself, and waits until it has exited. It returns the victim's complaint as an error.
func (v *Victim) Verify() error {
	if err := v.Signal(unix.SIGUSR1); err != nil {
		return fmt.Errorf("ask the victim %s for its verdict: %w", v.Name, err)
	}
	line, err := v.nextLine()
	if err != nil {
		return err
	}
	status, err := v.Wait()
	if err != nil {
		return err
	}
	if line != "ok" {
		return fmt.Errorf("the victim %s: %s", v.Name, line)
	}
	// A restored victim may be the child of another process, which then has the status.
	if status != 0 {
		return fmt.Errorf("the victim %s said ok and ended with %s", v.Name, describeStatus(status))
	}
	return nil
}

// MustVerify is Verify, and fails the test when the victim complains.
func (v *Victim) MustVerify() {
	v.t.Helper()
	if err := v.Verify(); err != nil {
		v.t.Fatal(err)
	}
}

// Ask asks the victim, with SIGUSR2, for a line about where it stands, and returns the line.
func (v *Victim) Ask() string {
	v.t.Helper()
	if err := v.Signal(unix.SIGUSR2); err != nil {
		v.t.Fatal(err)
	}
	return v.NextLine()
}

// NextLine waits for the next line of the victim's output and returns it, without its end. It fails the test when the
// victim exits instead, or says nothing for Patience.
func (v *Victim) NextLine() string {
	v.t.Helper()
	line, err := v.nextLine()
	if err != nil {
		v.t.Fatal(err)
	}
	return line
}

func (v *Victim) nextLine() (string, error) {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return "", fmt.Errorf("inotify_init1: %w", err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, v.Output, unix.IN_MODIFY); err != nil {
		return "", fmt.Errorf("inotify_add_watch %s: %w", v.Output, err)
	}
	deadline := time.Now().Add(Patience)
	for gone := false; ; {
		// Looked at after the watch was set, and once more after the end of the process, so that nothing is missed.
		output, err := os.ReadFile(v.Output)
		if err != nil {
			return "", err
		}
		if line, _, whole := bytes.Cut(output[min(v.seen, len(output)):], []byte("\n")); whole {
			v.seen += len(line) + 1
			return string(line), nil
		}
		if gone {
			status, err := v.Wait()
			if err != nil {
				return "", err
			}
			return "", fmt.Errorf("the victim %s, process %d, ended with %s and said nothing more; all it said: %q", v.Name, v.Pid, describeStatus(status), output)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return "", fmt.Errorf("the victim %s, process %d, state %s: %w; all it said: %q", v.Name, v.Pid, v.State(), errTooLate("a line of output"), output)
		}
		ready, err := pollIn(left, watch, v.pidfd)
		if err != nil {
			return "", err
		}
		if ready[0] {
			var events [4096]byte
			_, _ = unix.Read(watch, events[:]) // what they say does not matter
		}
		gone = ready[1]
	}
}

func describeStatus(status syscall.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("signal %v", status.Signal())
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
