//go:build amd64

package engine

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// What package proc reads through Proc is what it reads through package os.
func TestProc(t *testing.T) {
	name := "self/environ"
	got, err := proc.New(linux.Proc{}).Self().Environ()
	want, wantErr := os.ReadFile("/proc/" + name)
	if err != nil || wantErr != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d, %v", name, len(got), err, len(want), wantErr)
	}
	ours, theirs := proc.New(linux.Proc{}), proc.New(os.DirFS("/proc"))
	for _, link := range []string{"exe", "cwd", "ns/pid"} {
		a, errA := ours.Self().Link(link)
		b, errB := theirs.Self().Link(link)
		if errors.Join(errA, errB) != nil || a != b {
			t.Errorf("%s: %q, %v; want %q, %v", link, a, errA, b, errB)
		}
	}
	pid := os.Getpid()
	a, errA := ours.Process(pid).Threads()
	b, errB := theirs.Process(pid).Threads()
	if errors.Join(errA, errB) != nil || !slices.Contains(a, pid) || !slices.Contains(b, pid) {
		t.Errorf("threads: %v, %v; %v, %v", a, errA, b, errB)
	}
	n := 0
	if err := ours.Self().Smaps(func(*proc.Smap) error { n++; return nil }); err != nil || n == 0 {
		t.Errorf("smaps: %d mappings, %v", n, err)
	}
	if _, err := ours.Process(1 << 30).Stat(); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, unix.ENOENT) {
		t.Errorf("a process that there is not: %v", err)
	}
	if _, err := (linux.Proc{}).Open("../etc/passwd"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a file outside: %v", err)
	}
}

// What is read of descriptors by way of open directories is what their paths have, also of one with so many locks that a read does not
// take all that is said of it.
func TestDescriptors(t *testing.T) {
	locked, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	const locks = 200
	for i := range locks {
		if err := unix.FcntlFlock(locked.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: int64(2 * i), Len: 1}); err != nil {
			t.Fatal(err)
		}
	}
	task := proc.New(linux.Proc{}).Process(os.Getpid())
	table, err := task.Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	info, err := table.Info(int(locked.Fd()))
	want, wantErr := task.FDInfo(int(locked.Fd()))
	if errors.Join(err, wantErr) != nil || len(info.Locks) != locks || !reflect.DeepEqual(info, want) {
		t.Errorf("%d locks, %v, want %d; %+v, %v", len(info.Locks), err, locks, want, wantErr)
	}
	if link, err := table.Link(int(locked.Fd())); err != nil || link != locked.Name() {
		t.Errorf("%q, %v, want %q", link, err, locked.Name())
	}
	if numbers, err := table.Numbers(); err != nil || !slices.Contains(numbers, int(locked.Fd())) {
		t.Errorf("%v, %v", numbers, err)
	}
	if _, err := table.Info(1 << 20); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a descriptor that there is not: %v", err)
	}
}
