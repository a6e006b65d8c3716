//go:build amd64

package engine

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// Users that nobody has.
const (
	oneUser     = 61510
	anotherUser = 61511
)

// privileges are what an engine is started.
type privileges struct {
	user    int
	capable bool // of CAP_CHECKPOINT_RESTORE, which is ambient
}

// run lets an engine with these privileges dump a process, which runs on, or restore.
func (r privileges) run(t *testing.T, what, images string) error {
	t.Helper()
	attr := &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(r.user), Gid: uint32(r.user)}}
	if r.capable {
		attr.AmbientCaps = []uintptr{unix.CAP_CHECKPOINT_RESTORE}
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Dir, cmd.SysProcAttr = "/", attr
	cmd.Env = append(os.Environ(), envPID+"="+what, envStep+"=0", envImages+"="+images) // and there is no step 0
	output, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return errors.New(string(bytes.TrimSpace(output)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return nil
}

// A user who has CAP_CHECKPOINT_RESTORE, and nothing else, dumps and restores what is that user's own.
func TestUnprivileged(t *testing.T) {
	for _, name := range []string{"counter", "threads", "tree", "files", "timers", "leaderless"} {
		t.Run(name, func(t *testing.T) {
			own := privileges{user: oneUser, capable: true}
			victim, images := dumpedBy(t, own, name)
			if err := own.run(t, restoring, images); err != nil {
				t.Fatal(err)
			}
			victim.Restored()
			victim.MustVerify()
		})
	}
}

// dumpedBy starts a victim of a user's, dumps it with some privileges, and ends it.
func dumpedBy(t *testing.T, with privileges, name string) (victim *testkit.Victim, images string) {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.VictimProgram(name))
	victim, images = testkit.VictimSpec{Name: name, UID: with.user}.Start(t), testkit.UserDir(t, with.user)
	if err := with.run(t, strconv.Itoa(victim.Pid), images); err != nil {
		t.Fatal(err)
	}
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
	return victim, images
}

// What a user lacks is said; the victim goes on, and of a restore nothing is left.
func TestUnprivilegedLacks(t *testing.T) {
	own := privileges{user: oneUser, capable: true}
	t.Run("the capability", func(t *testing.T) {
		none := privileges{user: oneUser}
		victim, images := dumpedBy(t, none, "threads") // which asks for none
		lacks(t, none.run(t, restoring, images), "a task with the number "+strconv.Itoa(victim.Pid)+" may not be made without CAP_CHECKPOINT_RESTORE")
		testkit.AwaitFreeIDs(t, images)
		if err := own.run(t, restoring, images); err != nil {
			t.Fatal(err)
		}
		victim.Restored()
		victim.MustVerify()
	})
	t.Run("another's process", func(t *testing.T) {
		testkit.Need(t, testkit.Root, testkit.VictimProgram("threads"))
		victim := testkit.VictimSpec{Name: "threads", UID: oneUser}.Start(t)
		lacks(t, privileges{user: anotherUser, capable: true}.run(t, strconv.Itoa(victim.Pid), testkit.UserDir(t, anotherUser)), "CAP_SYS_PTRACE")
		victim.MustVerify()
	})
	t.Run("another's images", func(t *testing.T) {
		_, images := dumpedBy(t, own, "threads")
		err := privileges{user: anotherUser, capable: true}.run(t, restoring, images)
		lacks(t, err, "permission denied")
		testkit.AwaitFreeIDs(t, images)
	})
	t.Run("another's images, handed over", func(t *testing.T) {
		victim, images := dumpedBy(t, own, "threads")
		handOver(t, victim.Dir, anotherUser)
		handOver(t, images, anotherUser)
		lacks(t, privileges{user: anotherUser, capable: true}.run(t, restoring, images), "setresgid("+strconv.Itoa(oneUser), "needs CAP_SETGID")
		testkit.AwaitFreeIDs(t, images)
	})
}

func lacks(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v, want %q", err, w)
		}
	}
}

// handOver gives a user a directory and what is in it.
func handOver(t *testing.T, dir string, user int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, user, user))
	})
	if err != nil {
		t.Fatal(err)
	}
}
