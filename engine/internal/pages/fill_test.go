//go:build amd64

package pages

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/image"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const area, base = 0x10000000, 0x20000000

// withProcess calls f with a process that has mappings and nothing else. Their prot is for good.
func withProcess(ctx context.Context, k *linux.Kernel, s *snapshot.Space, files []int, f func(*stub.Process) error) error {
	return ptrace.Run(ctx, ptrace.Options{Kernel: k, ExitKill: true}, func(tr *ptrace.Tracer) error {
		layout := &stub.Layout{Area: snapshot.Range{Start: area, End: area + stub.AreaSize}, Files: files, FirstFile: 30}
		p, err := stub.Start(tr, layout)
		if err != nil {
			return err
		}
		var calls []stub.Call
		for _, v := range s.VMAs {
			fd := ^uint64(0)
			if v.Kind == snapshot.FilePrivate {
				fd = uint64(layout.File(int(v.File)))
			}
			calls = append(calls, stub.NewCall(unix.SYS_MMAP, v.Start, v.Len(), uint64(v.Prot), uint64(v.Flags|unix.MAP_FIXED), fd, v.Offset))
			for bit := range uint64(64) {
				if v.Advice>>bit&1 != 0 {
					calls = append(calls, stub.NewCall(unix.SYS_MADVISE, v.Start, v.Len(), bit))
				}
			}
		}
		if err = errors.Join(p.Run(calls), remote.Must(calls)); err == nil {
			err = f(p)
		}
		clean, cancel := context.WithCancel(context.WithoutCancel(tr.Context()))
		defer cancel()
		return errors.Join(err, tr.WithContext(clean, p.Destroy))
	})
}

// anon is a private mapping of n pages, at a page after base.
func anon(page, n uint64, prot uint32) snapshot.VMA {
	return snapshot.VMA{Range: span(page, n), Kind: snapshot.AnonPrivate, Prot: prot, Flags: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}
}

func span(page, n uint64) snapshot.Range {
	return snapshot.Range{Start: base + page*Size, End: base + (page+n)*Size}
}

// pagesFile writes a file of n pages, each of which is full of its own number.
func pagesFile(t testing.TB, dir string, n uint64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "pages"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	const atOnce = 256
	buf := make([]byte, atOnce*Size)
	for page := uint64(0); page < n; page += atOnce {
		for i := uint64(0); i < atOnce; i++ {
			fillWith(buf[i*Size:(i+1)*Size], page+i)
		}
		if _, err := f.Write(buf[:min(atOnce, n-page)*Size]); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// inMemory is a file that is in none.
func inMemory(t *testing.T, content []byte) image.File {
	t.Helper()
	d := image.NewMemDir(nil)
	w, err := d.Create("pages")
	if err == nil {
		_, err = w.Write(content)
		err = errors.Join(err, w.Close())
	}
	f, openErr := d.Open("pages")
	if err = errors.Join(err, openErr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func fillWith(page []byte, number uint64) {
	for i := 0; i < len(page); i += 8 {
		binary.LittleEndian.PutUint64(page[i:], number+1)
	}
}

// expect reads memory back, whatever its protection: pages that were written have the number of their place in the file, others
// are zeros.
func expect(p *stub.Process, s *snapshot.Space, runs []FillRun) error {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.PID))
	if err != nil {
		return err
	}
	defer mem.Close()
	want, got := make([]byte, Size), make([]byte, Size)
	for _, v := range s.VMAs {
		for at := v.Start; at < v.End; at += Size {
			fillWith(want, ^uint64(0)) // which is zeros
			for len(runs) > 0 && runs[0].End <= at {
				runs = runs[1:]
			}
			if len(runs) > 0 && runs[0].Start <= at && runs[0].Fate == FillWrite {
				fillWith(want, (uint64(runs[0].Offset)+at-runs[0].Start)/Size)
			}
			if _, err := mem.ReadAt(got, int64(at)); err != nil {
				return err
			}
			if !bytes.Equal(want, got) {
				return fmt.Errorf("the page at %#x has %x, want %x", at, got[:16], want[:16])
			}
		}
	}
	return nil
}

// fill fills a process, and looks at what it has then.
func fill(ctx context.Context, k *linux.Kernel, s *snapshot.Space, runs []FillRun, f *Filler) error {
	return fillPrepared(ctx, k, s, runs, f, nil)
}

// fillPrepared is fill of a process that makes some calls before.
func fillPrepared(ctx context.Context, k *linux.Kernel, s *snapshot.Space, runs []FillRun, f *Filler, first []stub.Call) error {
	return withProcess(ctx, k, s, nil, func(p *stub.Process) error {
		if err := errors.Join(p.Run(first), remote.Must(first)); err != nil {
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

func descriptors(p *stub.Process) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
	if err != nil {
		return -1
	}
	return len(entries)
}

const readWrite = unix.PROT_READ | unix.PROT_WRITE

// mixed is memory of all protections, small mappings and large ones, and runs of a page and of many, some over two mappings.
func mixed(file image.File, large uint64) (*snapshot.Space, []FillRun) {
	s := &snapshot.Space{VMAs: []snapshot.VMA{
		anon(0, 3, readWrite), anon(3, 2, unix.PROT_READ), anon(5, 3, unix.PROT_NONE), anon(20, 2000, readWrite),
		anon(4000, large, readWrite), anon(4000+large, large, unix.PROT_READ), anon(4100+2*large, 100, unix.PROT_READ|unix.PROT_EXEC),
	}}
	var runs []FillRun
	offset := int64(0)
	add := func(page, n uint64) {
		runs = append(runs, FillRun{Range: span(page, n), Fate: FillWrite, File: file, Offset: offset})
		offset += int64(n) * Size
	}
	add(1, 6) // over three mappings
	for page := uint64(20); page < 20+min(2000, 4*large); page += 3 {
		add(page, 1+page%2)
	}
	offset += 5 * Size // of somebody else
	add(4000, 1)
	add(4002, 2*large-3)
	add(4100+2*large, 100)
	return s, runs
}

func TestFill(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const large = 3000
	file := pagesFile(t, t.TempDir(), 2*large+2000)
	content, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	unreal := inMemory(t, content)
	for _, c := range []struct {
		name   string
		large  uint64
		file   image.File
		filler Filler
		ours   bool // what goes through a userfaultfd is copied by threads of ours
	}{
		{"small", 50, file, Filler{}, false},
		{"large", large, file, Filler{}, false},
		{"large without userfaultfd", large, file, Filler{NoUserfaultfd: true}, false},
		{"in no file", large, unreal, Filler{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, runs := mixed(c.file, c.large)
			var calls, copies atomic.Int64
			k := &linux.Kernel{Step: func(call string) error {
				calls.Add(1)
				if strings.Contains(call, "UFFDIO_COPY") {
					copies.Add(1)
				}
				return nil
			}}
			if err := fill(t.Context(), k, s, runs, &c.filler); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls for %d pages", calls.Load(), c.filler.Written)
			if want := c.filler.Expect / Size; c.filler.Written != want {
				t.Errorf("%d pages written, want %d", c.filler.Written, want)
			}
			if ours := copies.Load() > 0; ours != c.ours {
				t.Errorf("%d copies through the userfaultfd were made by us", copies.Load())
			}
		})
	}
}

// A mapping of a file has pages of its own where some were written, and shows the file elsewhere.
func TestFillFile(t *testing.T) {
	testkit.Need(t, testkit.Root)
	file := pagesFile(t, t.TempDir(), 3000)
	for _, prot := range []uint32{unix.PROT_READ, readWrite, unix.PROT_READ | unix.PROT_EXEC} {
		s := &snapshot.Space{VMAs: []snapshot.VMA{{Range: span(0, 1500), Kind: snapshot.FilePrivate, Prot: prot, Flags: unix.MAP_PRIVATE}}}
		err := withProcess(t.Context(), nil, s, []int{int(file.Fd())}, func(p *stub.Process) error {
			f := &Filler{Kernel: p.Tracer().Kernel(), Process: p, Space: s, Expect: manyFrom}
			err := f.Add(FillRun{Range: span(10, 1000), Fate: FillWrite, File: file, Offset: 1600 * Size})
			if err = f.Finish(err); err != nil {
				return err
			}
			return expect(p, s, []FillRun{
				{Range: span(0, 10), Fate: FillWrite}, {Range: span(10, 1000), Fate: FillWrite, Offset: 1600 * Size},
				{Range: span(1010, 490), Fate: FillWrite, Offset: 1010 * Size},
			})
		})
		if err != nil {
			t.Errorf("protection %d: %v", prot, err)
		}
	}
}

// Pages that came with the fork are kept, given back or written over; those that are kept stay shared.
func TestFillForked(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const n = 2000
	file := pagesFile(t, t.TempDir(), 2*n)
	s := &snapshot.Space{VMAs: []snapshot.VMA{anon(0, n, readWrite), anon(n+10, n, readWrite)}}
	for _, known := range []bool{true, false} {
		err := withProcess(t.Context(), nil, s, nil, func(p *stub.Process) (err error) {
			before := FillRun{Range: span(0, n), Fate: FillWrite, File: file}
			f := &Filler{Kernel: p.Tracer().Kernel(), Process: p, Space: s, Expect: n * Size}
			if err = f.Finish(f.Add(before)); err != nil {
				return err
			}
			made, err := p.Fork([]stub.Child{{}})
			for _, c := range made {
				defer func() { err = errors.Join(err, c.Destroy()) }()
			}
			if err != nil {
				return err
			}
			child := made[0]
			runs := []FillRun{
				{Range: span(0, 100), Fate: FillKeep}, {Range: span(100, 300), Fate: FillDrop},
				{Range: span(400, 200), Fate: FillWrite, File: file, Offset: 700 * Size}, {Range: span(700, n-700), Fate: FillKeep},
				{Range: span(n+10, n), Fate: FillWrite, File: file, Offset: n * Size},
			}
			f = &Filler{Kernel: p.Tracer().Kernel(), Process: child, Space: s, Expect: manyFrom}
			if known { // otherwise they are found out about one by one
				f.Inherited = []snapshot.Range{span(0, n)}
			}
			for _, r := range runs {
				if err = f.Add(r); err != nil {
					break
				}
			}
			if err = f.Finish(err); err != nil {
				return err
			}
			if f.Dropped != 300 || f.Written != n+200 {
				return fmt.Errorf("%d pages dropped, %d written", f.Dropped, f.Written)
			}
			err = expect(child, s, []FillRun{
				{Range: span(0, 100), Fate: FillWrite}, runs[2],
				{Range: span(600, n-600), Fate: FillWrite, Offset: 600 * Size}, runs[4],
			})
			return errors.Join(err, expect(p, s, []FillRun{before}))
		})
		if err != nil {
			t.Errorf("known to have pages: %v: %v", known, err)
		}
	}
}

// An image that has become shorter is an error that says so, in whatever way it is read.
func TestFillTruncated(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, large := range []uint64{50, 3000} {
		file := pagesFile(t, t.TempDir(), 2*large+1400+112)
		s, runs := mixed(file, large)
		if err := file.Truncate(int64(large)*Size + 100); err != nil {
			t.Fatal(err)
		}
		err := fill(t.Context(), nil, s, runs, &Filler{})
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "read the pages at") {
			t.Errorf("%d pages: %v", large, err)
		}
	}
}

// Pages for which there is no memory are an error.
func TestFillNowhere(t *testing.T) {
	testkit.Need(t, testkit.Root)
	file := pagesFile(t, t.TempDir(), 100)
	s := &snapshot.Space{VMAs: []snapshot.VMA{anon(0, 10, readWrite), anon(20, 10, readWrite)}}
	for _, r := range []snapshot.Range{span(9, 2), span(15, 2), span(29, 2), span(100, 1)} {
		err := fill(t.Context(), nil, s, []FillRun{{Range: r, Fate: FillWrite, File: file}}, &Filler{})
		if err == nil || !strings.Contains(err.Error(), "there is no memory for the page") {
			t.Errorf("%#x-%#x: %v", r.Start, r.End, err)
		}
	}
}

var errInjected = errors.New("injected")

// Whatever call fails, the error comes up and nothing is left.
func TestFillFailsAtEveryStep(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, large := range []uint64{20, 1000} {
		file := pagesFile(t, t.TempDir(), 2*large+2000)
		s, runs := mixed(file, large)
		for step := int64(1); ; step += 1 + step/20 { // most are of the same kind
			var count atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			k := &linux.Kernel{Step: func(call string) error {
				if count.Add(1) != step {
					return nil
				}
				if step%2 == 0 {
					cancel()
				}
				return fmt.Errorf("%w at step %d, %s", errInjected, step, call)
			}}
			err := fill(ctx, k, s, runs, &Filler{})
			cancel()
			if count.Load() < step {
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d steps with %d pages", count.Load(), 2*large)
				break
			}
			if err == nil {
				t.Errorf("step %d failed, and nobody noticed", step)
			}
		}
	}
}

// A fill that is cancelled ends.
func TestFillIsCancelled(t *testing.T) {
	testkit.Need(t, testkit.Root)
	file := pagesFile(t, t.TempDir(), 8000)
	s, runs := mixed(file, 3000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var moved atomic.Bool
	k := &linux.Kernel{Step: func(call string) error {
		// The first pages go by force; what comes then is for others to do.
		if moved.Load() {
			cancel()
		}
		if strings.Contains(call, "/proc/PID/mem") {
			moved.Store(true)
		}
		return nil
	}}
	if err := fill(ctx, k, s, runs, &Filler{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled fill: %v", err)
	}
}
