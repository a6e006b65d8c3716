//go:build amd64

package engine

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/image"
	"stasis.example/image/entry"
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
	for _, name := range []string{"counter", "threads", "tree", "files", "timers", "leaderless", "ghosts"} {
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
	t.Run("a deleted program that runs as root", func(t *testing.T) {
		victim, images := dumpedBy(t, own, "ghosts")
		dir, err := image.OpenDir(images)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		uid := chownGhost(t, dir, 0, unix.S_IFREG|0o4755)
		handOver(t, images, oneUser)
		lacks(t, own.run(t, restoring, images), "uid 0", unix.EPERM.Error())
		testkit.AwaitFreeIDs(t, images)
		chownGhost(t, dir, uid, unix.S_IFREG|0o640)
		handOver(t, images, oneUser)
		if err := own.run(t, restoring, images); err != nil {
			t.Fatal(err)
		}
		victim.Restored()
		victim.MustVerify()
	})
}

// chownGhost gives the first deleted file of some images another owner and mode, and returns the owner before.
func chownGhost(t *testing.T, dir image.Dir, uid, mode uint32) (before uint32) {
	t.Helper()
	in, err := image.Open(dir, image.GhostFile, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var e entry.GhostFile
	if err := in.Next(&e); err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(in.Rest())
	if err != nil {
		t.Fatal(err)
	}
	before, e.UID, e.Mode = e.UID, uid, mode
	out, err := image.Create(dir, image.GhostFile, 1)
	if err != nil {
		t.Fatal(err)
	}
	_ = out.Put(&e)
	_, _ = out.Write(content)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return before
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
