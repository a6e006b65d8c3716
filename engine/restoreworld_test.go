//go:build amd64

package engine

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// A file that is gone or is another one is named, with what is wrong with it, and nothing is left of the restore. When the file is
// put back, the same images restore.
func TestRestoreOfChangedFiles(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("files"), testkit.VictimProgram("counter"))
	for _, tc := range []struct {
		name   string
		file   string // in the victim's directory
		change func(name string) error
		want   string
		is     error
	}{
		{name: "a file is gone", file: "data", change: os.Remove, want: "/data is gone: put it back", is: fs.ErrNotExist},
		{name: "a working directory is gone", file: "dir/one", change: os.Remove, want: "/dir/one is gone: put it back", is: fs.ErrNotExist},
		{name: "a file has grown", file: "data", change: grow, want: "/data: its size was "},
		{name: "a file is a directory", file: "data", change: func(name string) error {
			return errors.Join(os.Remove(name), os.Mkdir(name, 0o700))
		}, want: "it was a regular file, and is a directory"},
		{name: "a file leads to another", file: "data", change: func(name string) error {
			return errors.Join(os.Remove(name), os.Symlink("/etc/passwd", name))
		}, want: "/data: its mode was "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			victim, images := dumped(t, "files")
			name, aside := filepath.Join(victim.Dir, tc.file), filepath.Join(victim.Dir, "aside")
			copyAside(t, name, aside)
			if err := tc.change(name); err != nil {
				t.Fatal(err)
			}
			refusedAndGone(t, images, restoreFrom(t.Context(), New(), images), tc.want, tc.is)
			if err := errors.Join(os.RemoveAll(name), os.Rename(aside, name)); err != nil {
				t.Fatal(err)
			}
			restoredAfterAll(t, victim, images)
		})
	}
	t.Run("a program was built anew", func(t *testing.T) {
		dir, images := t.TempDir(), t.TempDir()
		name := filepath.Join(dir, "program")
		program, err := os.ReadFile(testkit.VictimPath(t, "counter"))
		if err == nil {
			err = testkit.WriteProgram(name, program)
		}
		if err != nil {
			t.Fatal(err)
		}
		victim := testkit.VictimSpec{Name: name, Dir: dir}.Start(t)
		endedByDump(t, victim, images)
		note := []byte("\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x00") // 20 bytes of build-id follow
		at := bytes.Index(program, note)
		if at < 0 {
			t.Fatal("the program has no build-id")
		}
		other := bytes.Clone(program)
		other[at+len(note)] ^= 1
		if err := testkit.WriteProgram(name, other); err != nil {
			t.Fatal(err)
		}
		refusedAndGone(t, images, restoreFrom(t.Context(), New(), images), "another build of the program", nil)
		if err := testkit.WriteProgram(name, program); err != nil {
			t.Fatal(err)
		}
		restoredAfterAll(t, victim, images)
	})
}

func grow(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}

// copyAside copies a file with its mode, or an empty directory.
func copyAside(t *testing.T, name, aside string) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		err = os.Mkdir(aside, info.Mode())
	} else {
		var content []byte
		if content, err = os.ReadFile(name); err == nil {
			err = os.WriteFile(aside, content, info.Mode())
		}
	}
	if err = errors.Join(err, os.Chmod(aside, info.Mode())); err != nil {
		t.Fatal(err)
	}
}

// endedByDump dumps a victim, and waits until its numbers are free.
func endedByDump(t *testing.T, victim *testkit.Victim, images string) {
	t.Helper()
	if err := dumpTo(t, New(), images, victim.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
}

// refusedAndGone checks what a restore has failed with, and that nothing is left of it.
func refusedAndGone(t *testing.T, images string, err error, want string, is error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || is != nil && !errors.Is(err, is) {
		t.Errorf("the restore: %v, want %q (%v)", err, want, is)
	}
	testkit.AwaitFreeIDs(t, images)
}

// restoredAfterAll restores once more, and asks the victim.
func restoredAfterAll(t *testing.T, victim *testkit.Victim, images string) {
	t.Helper()
	if err := restoreFrom(t.Context(), New(), images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	victim.MustVerify()
}

// restoreWith restores with options of the test's.
func restoreWith(t *testing.T, e *Engine, images string, change func(*criu.RestoreOptions)) error {
	t.Helper()
	o := criu.RestoreOptions{ImagesDir: images, LogFile: "restore.log", LogLevel: 4}
	change(&o)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	_, err := criu.New(e).Restore(ctx, o)
	return err
}

// A restore, and a dump that lets the tree run on or ends it, whose statistics or log find no room fails before what cannot be taken
// back: it is never called failed though it was done.
func TestStatisticsToFullDisk(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("tree"))
	t.Run("restore", func(t *testing.T) {
		victim, images := dumped(t, "tree")
		disk := testkit.FullDisk(t)
		err := restoreWith(t, New(), images, func(o *criu.RestoreOptions) { o.WorkDir = disk })
		refusedAndGone(t, images, err, "the statistics cannot be written (--work-dir says where)", criu.ErrNoSpace)
		restoredAfterAll(t, victim, images)
	})
	for name, change := range map[string]func(*criu.DumpOptions){
		"dump":                func(*criu.DumpOptions) {},
		"dump, leave stopped": func(o *criu.DumpOptions) { o.LeaveStopped = true },
		"dump, leave running": func(o *criu.DumpOptions) { o.LeaveRunning = true },
	} {
		t.Run(name, func(t *testing.T) {
			victim, disk := testkit.StartVictim(t, "tree"), testkit.FullDisk(t)
			err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) { o.WorkDir = disk; change(o) })
			if !errors.Is(err, criu.ErrNoSpace) || !strings.Contains(err.Error(), "the statistics cannot be written") {
				t.Errorf("the dump: %v", err)
			}
			victim.MustVerify()
		})
	}
}

// Statistics that cannot be printed are no reason to call failed what is done.
func TestStatisticsThatNobodyReads(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	victim, images := testkit.StartVictim(t, "counter"), t.TempDir()
	e := New()
	e.settings.Out = full
	if err := dumpTo(t, e, images, victim.Pid, func(o *criu.DumpOptions) { o.DisplayStats = true }); err != nil {
		t.Fatal(err)
	}
	if _, err := victim.Wait(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
	if err := restoreWith(t, e, images, func(o *criu.RestoreOptions) { o.DisplayStats = true }); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	for _, name := range []string{"dump.log", "restore.log"} {
		log, err := os.ReadFile(filepath.Join(images, name))
		if err != nil || !strings.Contains(string(log), "Warn ") || !strings.Contains(string(log), "statistics: write /dev/full: no space left on device") {
			t.Errorf("%s: %v\n%s", name, err, log)
		}
	}
	victim.MustVerify()
}

// A restore whose time is over says so, and is taken back, wherever it is.
func TestRestoreTimesOut(t *testing.T) {
	victim, images := dumped(t, "tree")
	var steps atomic.Int64
	e := New()
	e.kernel = &linux.Kernel{Step: func(string) error { steps.Add(1); return nil }}
	if err := restoreFrom(t.Context(), e, images); err != nil {
		t.Fatal(err)
	}
	victim.Restored()
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	testkit.AwaitFreeIDs(t, images)
	all := steps.Load()
	for _, part := range []int64{10, 4, 2} {
		var count atomic.Int64
		e.kernel = &linux.Kernel{Step: func(string) error {
			if count.Add(1) == all/part {
				<-time.After(1200 * time.Millisecond) // longer than it may take
			}
			return nil
		}}
		err := restoreWith(t, e, images, func(o *criu.RestoreOptions) { o.Raw.Timeout = new(uint32(1)) })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("at step %d of %d: %v", all/part, all, err)
		}
		refusedAndGone(t, images, err, "it took longer than --timeout allows, 1 s, and was taken back", nil)
	}
	for _, stage := range []string{"pre-restore", "post-restore", "pre-resume"} {
		err := restoreWith(t, New(), images, func(o *criu.RestoreOptions) {
			o.Raw.Timeout = new(uint32(1))
			o.Notify = func(_ context.Context, n *criu.Event) error {
				if n.Name == stage {
					<-time.After(1200 * time.Millisecond)
				}
				return nil
			}
		})
		refusedAndGone(t, images, err, "it took longer than --timeout allows, 1 s, and was taken back", unix.ETIMEDOUT)
	}
	restoredAfterAll(t, victim, images)
}
