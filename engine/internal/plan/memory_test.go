package plan

import (
	"errors"
	"io"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"

	"github.com/google/go-cmp/cmp"
)

func vma(start, end uint64, kind snapshot.VMAKind) snapshot.VMA {
	return snapshot.VMA{Range: snapshot.Range{Start: start, End: end}, Kind: kind}
}

func TestCommon(t *testing.T) {
	file := func(start, end uint64, id snapshot.FileID, off uint64) snapshot.VMA {
		v := vma(start, end, snapshot.FilePrivate)
		v.File, v.Offset = id, off
		return v
	}
	dontfork := vma(0x9000, 0xa000, snapshot.AnonPrivate)
	dontfork.Advice = 1 << adviseDontFork
	paths := map[snapshot.FileID]snapshot.Path{1: {Name: "/lib"}, 2: {Name: "/lib"}, 3: {Name: "/other"}}
	parent := []snapshot.VMA{
		vma(0x1000, 0x5000, snapshot.AnonPrivate),
		file(0x5000, 0x8000, 1, 0x1000),
		dontfork,
		vma(0xb000, 0xc000, snapshot.FileShared),
		file(0xd000, 0xe000, 1, 0),
		file(0xe000, 0xf000, 1, 0),
	}
	child := []snapshot.VMA{
		vma(0x2000, 0x3000, snapshot.AnonPrivate), // the middle was split off
		vma(0x4000, 0x5000, snapshot.AnonPrivate),
		file(0x6000, 0x8000, 2, 0x2000), // another entry for the same file
		vma(0x9000, 0xa000, snapshot.AnonPrivate),
		vma(0xb000, 0xc000, snapshot.FileShared),
		file(0xd000, 0xe000, 1, 0x1000), // mapped again, elsewhere
		file(0xe000, 0xf000, 3, 0),      // another file
	}
	want := []snapshot.Range{{Start: 0x2000, End: 0x3000}, {Start: 0x4000, End: 0x5000}, {Start: 0x6000, End: 0x8000}}
	if diff := cmp.Diff(want, common(paths, child, parent)); diff != "" {
		t.Error(diff)
	}
}

// chainOf makes a chain of runs of pages of 4096 bytes.
func chainOf(t *testing.T, d image.Dir, id uint64, list ...[2]uint64) *runs {
	t.Helper()
	entries := []entry.Message{&entry.PagemapHead{PagesID: uint32(id)}}
	size := uint64(0)
	for _, r := range list {
		entries = append(entries, &entry.PagemapEntry{Vaddr: r[0], NrPages: new((r[1] - r[0]) / 4096), Flags: new(uint32(image.PagePresent))})
		size += r[1] - r[0]
	}
	if err := image.WriteAll(d, image.Pagemap, id, entries...); err != nil {
		t.Fatal(err)
	}
	write(t, d, image.Pages.File(id), make([]byte, size))
	c, err := image.OpenChain(d, image.Pagemap, id, 4096, image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &runs{chain: c, pageSize: 4096}
}

func TestOverlap(t *testing.T) {
	d := image.NewMemDir(nil)
	a := chainOf(t, d, 1, [2]uint64{0x1000, 0x4000}, [2]uint64{0x8000, 0x9000}, [2]uint64{0x20000, 0x30000})
	b := chainOf(t, d, 2, [2]uint64{0x3000, 0x9000}, [2]uint64{0x28000, 0x29000}, [2]uint64{0x2f000, 0x40000})
	for _, c := range []struct{ start, end, want uint64 }{
		{0x0, 0x2000, 0}, {0x2000, 0x8000, 0x1000}, {0x8000, 0x9000, 0x1000}, {0xa000, 0x28000, 0}, {0x28000, 0x50000, 0x2000}, {0x50000, 0x60000, 0},
	} {
		got, err := overlap(a, b, snapshot.Range{Start: c.start, End: c.end})
		if err != nil || got != c.want {
			t.Errorf("%#x-%#x: %#x, %v, want %#x", c.start, c.end, got, err, c.want)
		}
	}
}

func TestHole(t *testing.T) {
	space := func(ranges ...[2]uint64) *snapshot.Space {
		s := &snapshot.Space{}
		for _, r := range ranges {
			s.VMAs = append(s.VMAs, vma(r[0], r[1], snapshot.AnonPrivate))
		}
		return s
	}
	end := snapshot.AMD64.UserEnd()
	for _, c := range []struct {
		name   string
		spaces []*snapshot.Space
		length uint64
		want   uint64
	}{
		{"empty", nil, 4096, 0x100000},
		{"low one used", []*snapshot.Space{space([2]uint64{0x100000, 0x101000})}, 4096, 0x110000},
		{"between", []*snapshot.Space{space([2]uint64{0x100000, 0x200000}, [2]uint64{0x400000, 0x500000})}, 0x200000, 0x200000},
		{"too small", []*snapshot.Space{space([2]uint64{0x100000, 0x200000}, [2]uint64{0x400000, 0x500000})}, 0x200001, 0x500000},
		{"of two", []*snapshot.Space{space([2]uint64{0x100000, 0x200000}, [2]uint64{0x300000, 0x500000}), space([2]uint64{0x200000, 0x210000}, [2]uint64{0x500000, 0x600000})}, 0x100000, 0x600000},
		{"full", []*snapshot.Space{space([2]uint64{0x1000, end - 0x20000})}, 0x20000, 0},
		{"absurd", nil, 1 << 63, 0},
	} {
		p := &Plan{Tree: &snapshot.Tree{Arch: snapshot.AMD64, PageSize: 4096, Spaces: c.spaces}}
		got, err := p.Hole(c.length)
		if (err != nil) != (c.want == 0) || got.Start != c.want {
			t.Errorf("%s: %#x, %v, want %#x", c.name, got.Start, err, c.want)
		}
	}
}

// TestParent plans a dump whose pages are half in that of an earlier one.
func TestParent(t *testing.T) {
	full := load(t, "testdata/criu/state")
	root := rootOf(t, full)
	d := image.NewMemDir(full)
	names, err := full.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if typ, _, _ := image.ParseFile(name); typ != image.Pages {
			copyFile(t, d, full, name)
		}
	}
	old, err := image.OpenPagemap(full, image.Pagemap, root, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	entries := []entry.Message{&entry.PagemapHead{PagesID: 1}}
	pages := uint64(0)
	for {
		run, err := old.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		flags := image.PageParent
		if len(entries)%2 == 0 {
			flags = image.PagePresent
			pages += run.Pages
		}
		entries = append(entries, &entry.PagemapEntry{Vaddr: run.Addr, NrPages: &run.Pages, Flags: new(uint32(flags))})
	}
	if err := image.WriteAll(d, image.Pagemap, root, entries...); err != nil {
		t.Fatal(err)
	}
	write(t, d, "pages-1.img", make([]byte, pages*4096))
	p, err := Make(t.Context(), d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Memory[0]; m.InParent == 0 || m.Pages != m.InParent+pages {
		t.Errorf("%+v, want %d pages not in the parent", m, pages)
	}
	// Without the parent it is refused.
	orphan := image.NewMemDir(nil)
	for _, name := range names {
		copyFile(t, orphan, d, name)
	}
	refusal(t, orphan, Options{})
}

func TestOrderWatches(t *testing.T) {
	w := func(epoll snapshot.FileID, watches ...snapshot.FileID) Watch {
		watch := Watch{Epoll: epoll}
		for _, f := range watches {
			watch.Items = append(watch.Items, snapshot.EpollItem{File: f})
		}
		return watch
	}
	r := new(images.Report)
	var got []snapshot.FileID
	for _, watch := range orderWatches([]Watch{w(1, 9, 3, 2), w(2, 3, 8), w(3, 7), w(4, 1, 3)}, r) {
		got = append(got, watch.Epoll)
	}
	if diff := cmp.Diff([]snapshot.FileID{3, 2, 1, 4}, got); diff != "" || !r.Empty() {
		t.Errorf("%v %s", r.Err(), diff)
	}
	orderWatches([]Watch{w(1, 2), w(2, 3), w(3, 1)}, r)
	if r.Empty() {
		t.Error("a circle was let through")
	}
}
