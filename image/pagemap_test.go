package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"stasis.example/image/entry"

	"github.com/google/go-cmp/cmp"
)

const pageSize = 4096

// pagemap writes a pagemap of process 7 and a pages file of as many pages, each filled with mark.
func pagemap(t testing.TB, d Dir, mark byte, runs ...PageRun) {
	t.Helper()
	w, err := CreatePagemap(d, Pagemap, 7, 1, pageSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if err := w.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := d.Create(Pages.File(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte{mark}, int(w.Present()*pageSize))); err != nil {
		t.Fatal(err)
	}
}

func TestPagemap(t *testing.T) {
	d := NewMemDir(nil)
	pagemap(t, d, 'x',
		PageRun{0x1000, 2, PagePresent}, PageRun{0x3000, 1, PagePresent}, // one run
		PageRun{0x4000, 1, PageParent},
		PageRun{0x5000, 0, PagePresent}, // nothing
		PageRun{0x8000, 1, PagePresent | PageLazy},
		PageRun{0x7f0000000000, 1 << 33, PageLazy})
	p, err := OpenPagemap(d, Pagemap, 7, pageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.PagesID() != 1 {
		t.Errorf("PagesID() = %d", p.PagesID())
	}
	var got []PageRun
	for {
		run, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, run)
	}
	want := []PageRun{{0x1000, 3, PagePresent}, {0x4000, 1, PageParent}, {0x8000, 1, PagePresent | PageLazy}, {0x7f0000000000, 1 << 33, PageLazy}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w, err := CreatePagemap(d, Pagemap, 8, 1, pageSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Add(PageRun{0x2000, 2, PagePresent}), w.Add(PageRun{0x3000, 1, PagePresent})); err == nil {
		t.Error("overlapping runs were taken")
	}
}

func TestPageRunEntries(t *testing.T) {
	u32, u64, yes := func(v uint32) *uint32 { return &v }, func(v uint64) *uint64 { return &v }, true
	for _, c := range []struct {
		name string
		in   entry.PagemapEntry
		want PageRun
	}{
		{"4.2", entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(4), NrPages: u64(3)}, PageRun{0x1000, 3, PagePresent}},
		{"both counts", entry.PagemapEntry{Vaddr: 0x1000, CompatNrPages: 3, Flags: u32(4), NrPages: u64(1 << 40)}, PageRun{0x1000, 1 << 40, PagePresent}},
		{"4.1", entry.PagemapEntry{Vaddr: 0x1000, CompatNrPages: 3, Flags: u32(6)}, PageRun{0x1000, 3, PagePresent | PageLazy}},
		{"old", entry.PagemapEntry{Vaddr: 0x1000, CompatNrPages: 3}, PageRun{0x1000, 3, PagePresent}},
		{"old, in parent", entry.PagemapEntry{Vaddr: 0x1000, CompatNrPages: 3, InParent: &yes}, PageRun{0x1000, 3, PageParent}},
	} {
		got, err := parsePageRun(c.in.Append(nil))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

// pagemapOf is a pagemap with the given entries, after a good head.
func pagemapOf(t testing.TB, entries ...entry.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, Pagemap)
	for _, e := range append([]entry.Message{&entry.PagemapHead{PagesID: 1}}, entries...) {
		if err := w.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readPagemap(b []byte) (runs int, err error) {
	p, err := NewPagemapReader(bytes.NewReader(b), pageSize, Limits{})
	for err == nil {
		if _, err = p.Next(); err == nil {
			runs++
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return runs, err
}

func TestBadPagemaps(t *testing.T) {
	u32, u64 := func(v uint32) *uint32 { return &v }, func(v uint64) *uint64 { return &v }
	good := entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(4), NrPages: u64(3)}
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"good", pagemapOf(t, &good), nil},
		{"no head", words(magicCommon, types[Pagemap].magic), ErrCorrupt},
		{"not on a page", pagemapOf(t, &entry.PagemapEntry{Vaddr: 1, Flags: u32(4), NrPages: u64(3)}), ErrCorrupt},
		{"no pages", pagemapOf(t, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(4)}), ErrCorrupt},
		{"beyond the end", pagemapOf(t, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(4), NrPages: u64(1 << 52)}), ErrCorrupt},
		{"twice", pagemapOf(t, &good, &good), ErrCorrupt},
		{"present and in parent", pagemapOf(t, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(5), NrPages: u64(3)}), ErrCorrupt},
		{"nowhere", pagemapOf(t, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(0), NrPages: u64(3)}), ErrCorrupt},
		{"no required field", pagemapOf(t, &entry.PagemapHead{PagesID: 1}), ErrCorrupt},
		{"unknown flag", pagemapOf(t, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(12), NrPages: u64(3)}), ErrCompressed},
		{"unknown field", pagemapOf(t, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(4), NrPages: u64(3), Unknown: []byte{6 << 3, 1}}), ErrCompressed},
	} {
		if _, err := readPagemap(c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := OpenPagemap(NewMemDir(nil), Core, 7, pageSize); err == nil {
		t.Error("a core was opened as a pagemap")
	}
	if _, err := OpenPagemap(NewMemDir(nil), Pagemap, 7, 5000); err == nil {
		t.Error("a page of 5000 bytes was taken")
	}
}

func FuzzPagemap(f *testing.F) {
	u32, u64 := func(v uint32) *uint32 { return &v }, func(v uint64) *uint64 { return &v }
	f.Add(pagemapOf(f, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(4), NrPages: u64(3)}, &entry.PagemapEntry{Vaddr: 0x4000, Flags: u32(1), CompatNrPages: 2}))
	f.Add(pagemapOf(f, &entry.PagemapEntry{Vaddr: 0x1000, Flags: u32(4), NrPages: u64(3), Unknown: []byte{6 << 3, 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := NewPagemapReader(bytes.NewReader(b), pageSize, Limits{})
		if err != nil {
			return
		}
		end := uint64(0)
		for {
			run, err := p.Next()
			if err != nil {
				return
			}
			if run.Addr < end || run.Pages == 0 || run.End(pageSize) <= run.Addr {
				t.Fatalf("run %+v after %#x", run, end)
			}
			end = run.End(pageSize)
		}
	})
}

// FuzzPageRun holds the fast decoder against the generated one.
func FuzzPageRun(f *testing.F) {
	f.Add([]byte{0x08, 0x80, 0x20, 0x10, 0x00, 0x20, 0x04, 0x28, 0x03})
	f.Add([]byte{0x08, 0x80, 0x20, 0x10, 0x03, 0x18, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parsePageRun(b)
		var e entry.PagemapEntry
		err2 := e.Decode(b)
		switch {
		case err2 != nil && err == nil:
			t.Fatalf("% x: taken, but %v", b, err2)
		case err != nil:
			if err2 == nil && len(e.Unknown) == 0 && e.GetFlags()&^7 == 0 {
				t.Fatalf("% x: %v, but it decodes to %+v", b, err, e)
			}
			return
		}
		pages := uint64(e.CompatNrPages)
		if e.NrPages != nil {
			pages = *e.NrPages
		}
		if got.Addr != e.Vaddr || got.Pages != pages {
			t.Fatalf("% x: %+v, but it decodes to %+v", b, got, e)
		}
	})
}

func TestChain(t *testing.T) {
	//        0x1000 0x2000 0x3000 0x4000 0x5000 0x6000 0x7000 0x8000
	// oldest   a      a      a      -      -      a
	// older    -      b      P      b      b      P
	// newest   -      P      P      P      c      P             c+lazy
	oldest := NewMemDir(nil)
	pagemap(t, oldest, 'a', PageRun{0x1000, 3, PagePresent}, PageRun{0x6000, 1, PagePresent})
	older := NewMemDir(oldest)
	pagemap(t, older, 'b', PageRun{0x2000, 1, PagePresent}, PageRun{0x3000, 1, PageParent}, PageRun{0x4000, 2, PagePresent}, PageRun{0x6000, 1, PageParent})
	newest := NewMemDir(older)
	pagemap(t, newest, 'c', PageRun{0x2000, 3, PageParent}, PageRun{0x5000, 1, PagePresent}, PageRun{0x6000, 1, PageParent}, PageRun{0x8000, 1, PagePresent | PageLazy}, PageRun{0x9000, 5, PageLazy})

	c, err := OpenChain(newest, Pagemap, 7, pageSize, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var got []Extent
	pages := ""
	for {
		e, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
		if e.Offset >= 0 {
			b := make([]byte, 1)
			if _, err := c.PagesFile(e.Level).ReadAt(b, e.Offset+int64(e.Pages*pageSize)-1); err != nil {
				t.Fatal(err)
			}
			pages += string(b)
		}
	}
	want := []Extent{
		{PageRun{0x2000, 1, PageParent}, 1, 0},
		{PageRun{0x3000, 1, PageParent}, 2, 2 * pageSize},
		{PageRun{0x4000, 1, PageParent}, 1, pageSize},
		{PageRun{0x5000, 1, PagePresent}, 0, 0},
		{PageRun{0x6000, 1, PageParent}, 2, 3 * pageSize},
		{PageRun{0x8000, 1, PagePresent | PageLazy}, 0, pageSize},
		{PageRun{0x9000, 5, PageLazy}, 0, -1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if pages != "babcac" {
		t.Errorf("pages are of %q", pages)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// loop is a directory that is its own parent.
type loop struct{ Dir }

func (l loop) Parent() (Dir, error) { return noClose{l}, nil }

func walk(d Dir) (n int, err error) {
	c, err := OpenChain(d, Pagemap, 7, pageSize, Limits{Parents: 10})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for {
		if _, err := c.Next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		}
		n++
	}
}

// FuzzChain makes a chain of three directories out of any pagemaps: it ends, and every extent is inside the pages file.
func FuzzChain(f *testing.F) {
	entries := func(runs ...PageRun) []byte {
		var all []entry.Message
		for _, r := range runs {
			all = append(all, &entry.PagemapEntry{Vaddr: r.Addr, Flags: new(uint32(r.Flags)), NrPages: new(r.Pages)})
		}
		return pagemapOf(f, all...)
	}
	f.Add(entries(PageRun{0x1000, 4, PageParent}), entries(PageRun{0x1000, 2, PageParent}, PageRun{0x3000, 8, PagePresent}), entries(PageRun{0x1000, 9, PagePresent}), uint16(12))
	f.Add(entries(PageRun{0x1000, 4, PageParent}, PageRun{0x8000, 2, PageLazy}), entries(PageRun{0x1000, 1, PagePresent}), entries(), uint16(1))
	f.Fuzz(func(t *testing.T, a, b, c []byte, pages uint16) {
		var d Dir
		for _, text := range [][]byte{c, b, a} {
			d = NewMemDir(d)
			put(t, d, Pagemap.File(7), string(text))
			put(t, d, Pages.File(1), string(make([]byte, int(pages%64)*pageSize)))
		}
		chain, err := OpenChain(d, Pagemap, 7, pageSize, Limits{})
		if err != nil {
			return
		}
		defer chain.Close()
		end := uint64(0)
		for {
			e, err := chain.Next()
			if err != nil {
				return
			}
			if e.Addr < end || e.Pages == 0 {
				t.Fatalf("extent %+v after %#x", e, end)
			}
			end = e.End(pageSize)
			if e.Offset < 0 {
				continue
			}
			if size := int64(pages%64) * pageSize; e.Offset+int64(e.Pages)*pageSize > size {
				t.Fatalf("extent %+v in a file of %d bytes", e, size)
			}
		}
	})
}

func TestBadChains(t *testing.T) {
	present := PageRun{0x1000, 4, PagePresent}
	inParent := PageRun{0x1000, 4, PageParent}
	for _, c := range []struct {
		name string
		make func() Dir
		want error
	}{
		{"no pagemap", func() Dir { return NewMemDir(nil) }, fs.ErrNotExist},
		{"circle", func() Dir { d := NewMemDir(nil); pagemap(t, d, 'a', inParent); return loop{d} }, ErrLimit},
		{"no parent", func() Dir { d := NewMemDir(nil); pagemap(t, d, 'a', inParent); return d }, fs.ErrNotExist},
		{"parent has no such process", func() Dir { d := NewMemDir(NewMemDir(nil)); pagemap(t, d, 'a', inParent); return d }, fs.ErrNotExist},
		{"parent does not have the pages", func() Dir {
			p := NewMemDir(nil)
			pagemap(t, p, 'a', PageRun{0x1000, 3, PagePresent})
			d := NewMemDir(p)
			pagemap(t, d, 'a', inParent)
			return d
		}, ErrCorrupt},
		{"hole in the parent", func() Dir {
			p := NewMemDir(nil)
			pagemap(t, p, 'a', PageRun{0x1000, 1, PagePresent}, PageRun{0x3000, 9, PagePresent})
			d := NewMemDir(p)
			pagemap(t, d, 'a', inParent)
			return d
		}, ErrCorrupt},
		{"no pages file", func() Dir {
			d := NewMemDir(nil)
			pagemap(t, d, 'a', present)
			if err := d.Remove(Pages.File(1)); err != nil {
				t.Fatal(err)
			}
			return d
		}, ErrCorrupt},
		{"pages file too short", func() Dir {
			d := NewMemDir(nil)
			pagemap(t, d, 'a', present)
			put(t, d, Pages.File(1), string(make([]byte, 4*pageSize-1)))
			return d
		}, ErrCorrupt},
		{"more pages than a file can hold", func() Dir {
			d := NewMemDir(nil)
			w, err := CreatePagemap(d, Pagemap, 7, 1, pageSize)
			mustOS(t, err)
			mustOS(t, w.Add(PageRun{0, 1 << 51, PagePresent}), w.Close())
			return d
		}, ErrCorrupt},
	} {
		if _, err := walk(c.make()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func BenchmarkPagemap(b *testing.B) {
	const runs = 100_000
	d := NewMemDir(nil)
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			w, err := CreatePagemap(d, Pagemap, 7, 1, pageSize)
			if err != nil {
				b.Fatal(err)
			}
			for i := range uint64(runs) {
				if err := w.Add(PageRun{i * 2 * pageSize, 1, PagePresent}); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			p, err := OpenPagemap(d, Pagemap, 7, pageSize)
			if err != nil {
				b.Fatal(err)
			}
			for n := 0; ; n++ {
				if _, err := p.Next(); err != nil {
					if !errors.Is(err, io.EOF) || n != runs {
						b.Fatal(n, err)
					}
					break
				}
			}
		}
	})
}

func TestPageFlagsString(t *testing.T) {
	for f, want := range map[PageFlags]string{
		PagePresent: "PE_PRESENT", PageParent: "PE_PARENT", PageLazy | PagePresent: "PE_LAZY|PE_PRESENT", 0: "0x0", 12: "PE_PRESENT|0x8",
	} {
		if got := fmt.Sprint(f); got != want {
			t.Errorf("%d: %q, want %q", f, got, want)
		}
	}
}
