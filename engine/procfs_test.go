//go:build amd64

package engine

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
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
