//go:build amd64

package pages

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/image"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// whole is memory of n pages, and a run that fills it.
func whole(file image.File, n uint64) (*snapshot.Space, []FillRun) {
	return &snapshot.Space{VMAs: []snapshot.VMA{anon(0, n, readWrite)}}, []FillRun{{Range: span(0, n), Fate: FillWrite, File: file}}
}

// A process that may not take files from us is filled by us.
func TestFillOfStranger(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const n = 8000
	file := pagesFile(t, t.TempDir(), n)
	var copies atomic.Int64
	k := &linux.Kernel{Step: func(call string) error {
		if strings.Contains(call, "UFFDIO_COPY") {
			copies.Add(1)
		}
		return nil
	}}
	const nobody = 65534
	s, runs := whole(file, n)
	err := fillPrepared(t.Context(), k, s, runs, &Filler{}, []stub.Call{stub.NewCall(unix.SYS_SETRESUID, nobody, nobody, nobody)})
	if err != nil {
		t.Fatal(err)
	}
	if copies.Load() == 0 {
		t.Error("it took files from us all the same")
	}
}

// flattering is a file that says to be longer than it is, as one is that has just become shorter.
type flattering struct {
	*os.File
	size int64
}

type flatteringInfo struct {
	fs.FileInfo
	size int64
}

func (i flatteringInfo) Size() int64 { return i.size }

func (f flattering) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	return flatteringInfo{info, f.size}, err
}

// Pages beyond the end of an image that were to be mapped are an error, not zeros.
func TestFillBeyondTheEnd(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const n = 8000
	file := pagesFile(t, t.TempDir(), n)
	if err := file.Truncate(n / 2 * Size); err != nil {
		t.Fatal(err)
	}
	s, runs := whole(flattering{file, n * Size}, n)
	err := fill(t.Context(), nil, s, runs, &Filler{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// Whoever of those that move pages is killed, the fill ends, and never with pages that are not there.
func TestFillKilled(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const n = 6000
	file := pagesFile(t, t.TempDir(), n)
	s, runs := whole(file, n)
	failed := 0
	for step := int64(1); ; step += 1 + step/4 {
		var count atomic.Int64
		k := &linux.Kernel{Step: func(string) error {
			if count.Add(1) == step {
				for _, pid := range children(t) {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			return nil
		}}
		if err := fill(t.Context(), k, s, runs, &Filler{}); err != nil {
			failed++
		}
		if count.Load() < step {
			break
		}
	}
	if failed == 0 {
		t.Error("nobody was killed")
	}
}

// children returns the children of this process, zombies included.
func children(t *testing.T) []int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	var pids []int
	for _, task := range tasks {
		text, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
