package interop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// A restore that lacks what a process had says what it lacks, and leaves nothing behind; one that has it succeeds with the same
// images.
func TestRestoreSaysWhatItLacks(t *testing.T) {
	for _, tc := range []struct {
		subject subject
		lacking string // a shell command that the restore is started after
		want    string
	}{
		{victimOf("limits"), "ulimit -n 1000", "RLIMIT_NOFILE: at most"},
		{victimOf("counter"), "exec setpriv --inh-caps -kill --bounding-set -kill", "CAP_KILL"},
		{victimOf("counter"), "exec setpriv --no-new-privs", "no_new_privs"},
	} {
		t.Run(tc.want, func(t *testing.T) {
			testkit.Need(t, append(tc.subject.needs, testkit.Root, testkit.Program("setpriv"))...)
			victim := tc.subject.start(t)
			images := t.TempDir()
			tc.subject.run(t, stasis, images, "dump", "-t", fmt.Sprint(victim.Pid))
			if _, err := victim.Wait(); err != nil {
				t.Fatal(err)
			}
			testkit.AwaitFreeIDs(t, images)
			cmd := command(t, stasis, nil, "restore", "-d", "-D", images, "-o", "lacking.log", "-v4")
			script := tc.lacking + "; exec"
			if strings.HasPrefix(tc.lacking, "exec ") {
				script = tc.lacking
			}
			lacking := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", script + ` "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)...)
			lacking.Env, lacking.SysProcAttr = cmd.Env, cmd.SysProcAttr
			output, err := lacking.CombinedOutput()
			if err == nil || !strings.Contains(string(output), tc.want) {
				t.Errorf("the restore: %v, want %q:\n%s", err, tc.want, output)
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", victim.Pid)); err == nil {
				t.Errorf("process %d is there", victim.Pid)
			}
			testkit.AwaitFreeIDs(t, images)
			tc.subject.run(t, stasis, images, "restore", "-d")
			victim.Restored()
			victim.MustVerify()
		})
	}
}

// A pidfile that finds no room fails the restore, which leaves no process and no file that would be in the way of the next one.
func TestPidfileOnFullDisk(t *testing.T) {
	subject := victimOf("tree")
	testkit.Need(t, append(subject.needs, testkit.Root)...)
	victim, images, disk := subject.start(t), t.TempDir(), testkit.FullDisk(t)
	subject.run(t, stasis, images, "dump", "-t", fmt.Sprint(victim.Pid))
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
	output, err := command(t, stasis, nil, "restore", "-d", "-D", images, "-W", disk, "--pidfile", "pid").CombinedOutput()
	if err == nil || !strings.Contains(string(output), "the pidfile cannot be written") || !strings.Contains(string(output), "no space left on device") {
		t.Errorf("the restore: %v\n%s", err, output)
	}
	testkit.AwaitFreeIDs(t, images)
	if _, err := os.Stat(filepath.Join(disk, "pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pidfile is there: %v", err)
	}
	subject.run(t, stasis, images, "restore", "-d")
	victim.Restored()
	victim.MustVerify()
}

// A user to whom the program itself gives CAP_CHECKPOINT_RESTORE, and nobody anything else, dumps and restores what is the user's own.
func TestCapabilityOfFile(t *testing.T) {
	const user = 61520
	for _, row := range []struct{ name, variable string }{
		{"counter", ""}, {"threads", ""}, {"tree", ""},
		{"tree", "TMPDIR=/tmp"}, // which the dynamic linker takes away
	} {
		name := row.name
		t.Run(strings.TrimSpace(name+" "+row.variable), func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram(name))
			program := testkit.ProgramWithCapability(t, unix.CAP_CHECKPOINT_RESTORE)
			victim, images := testkit.VictimSpec{Name: name, UID: user}.Start(t), testkit.UserDir(t, user)
			run := func(args ...string) {
				t.Helper()
				cmd := command(t, stasis, nil, append(args, "-D", images, "-v4")...)
				cmd.Path, cmd.Dir, cmd.Env = program, images, append(cmd.Env, "HOME="+images)
				cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "TMPDIR=") })
				if row.variable != "" {
					cmd.Env = append(cmd.Env, row.variable)
				}
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
				if output, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, output)
				}
			}
			run("dump", "-t", fmt.Sprint(victim.Pid))
			if _, err := victim.Wait(); err != nil {
				t.Fatal(err)
			}
			testkit.AwaitFreeIDs(t, images)
			run("restore", "-d")
			victim.Restored()
			victim.MustVerify()
		})
	}
}
