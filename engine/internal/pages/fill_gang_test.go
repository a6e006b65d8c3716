//go:build amd64

package pages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/stub"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// fillWhole fills a process that has nothing but as much writable memory as the file has pages.
func fillWhole(ctx context.Context, k *linux.Kernel, f *Filler, runs []FillRun, prepare func(*stub.Process) error) error {
	s, _ := mixed(nil, 0)
	s.VMAs = s.VMAs[:0]
	for _, r := range runs {
		s.VMAs = append(s.VMAs, anon((r.Start-base)/Size, r.Len()/Size, readWrite))
	}
	return withProcess(ctx, k, s, nil, func(p *stub.Process) error {
		if err := prepare(p); err != nil {
			return err
		}
		before := descriptors(p)
		f.Kernel, f.Process, f.Space = p.Tracer().Kernel(), p, s
		for _, r := range runs {
			f.Expect += r.Len()
		}
		var err error
		for _, r := range runs {
			if err = f.Add(r); err != nil {
				break
			}
		}
		if err = f.Finish(err); err != nil {
			return err
		}
		if after := descriptors(p); before != after {
			return fmt.Errorf("it has %d descriptors, had %d", after, before)
		}
		return expect(p, s, runs)
	})
}

func asItIs(*stub.Process) error { return nil }

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
	err := fillWhole(t.Context(), k, &Filler{}, []FillRun{{Range: span(0, n), Fate: FillWrite, File: file}}, func(p *stub.Process) error {
		calls := []stub.Call{stub.NewCall(unix.SYS_SETRESUID, nobody, nobody, nobody)}
		return errors.Join(p.Run(calls), remote.Must(calls))
	})
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
	runs := []FillRun{{Range: span(0, n), Fate: FillWrite, File: flattering{file, n * Size}}}
	err := fillWhole(t.Context(), nil, &Filler{}, runs, asItIs)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// Whoever of those that move pages is killed, the fill ends, and never with pages that are not there.
func TestFillKilled(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const n = 6000
	file := pagesFile(t, t.TempDir(), n)
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
		err := fillWhole(t.Context(), k, &Filler{}, []FillRun{{Range: span(0, n), Fate: FillWrite, File: file}}, asItIs)
		if err != nil {
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
