package plan

import (
	"context"
	"errors"
	"strings"
	"testing"

	"stasis.example/image"
	"stasis.example/image/entry"
)

// cancelling is an image directory that ends a context when a kind of image is opened or read the so-maniest time, and counts how often any
// is afterwards.
type cancelling struct {
	image.Dir
	prefix string
	left   int
	cancel context.CancelFunc
	after  int
}

type cancellingFile struct {
	image.File
	d    *cancelling
	name string
}

func (d *cancelling) count(name string) {
	if d.left == 0 {
		d.after++
		return
	}
	if strings.HasPrefix(name, d.prefix) {
		if d.left--; d.left == 0 {
			d.cancel()
		}
	}
}

func (d *cancelling) Open(name string) (image.File, error) {
	d.count(name)
	f, err := d.Dir.Open(name)
	if err != nil {
		return nil, err
	}
	return &cancellingFile{f, d, name}, nil
}

func (f *cancellingFile) Read(b []byte) (int, error) {
	f.d.count(f.name)
	return f.File.Read(b)
}

func (f *cancellingFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.count(f.name)
	return f.File.ReadAt(b, off)
}

// A plan of images without end is given up soon after its context has ended, wherever it is: counted in what is still read.
func TestMakeIsCancelled(t *testing.T) {
	const many, runs = 20000, 4000
	wide := func(t *testing.T) image.Dir { // many processes
		d := load(t, "testdata/criu/state")
		tree, err := image.ReadPSTree(d)
		if err != nil {
			t.Fatal(err)
		}
		var all []entry.Message
		for i := range many {
			e := tree[0]
			if i > 0 {
				e.PID, e.PPID, e.Threads = uint32(100000+i), tree[0].PID, []uint32{uint32(100000 + i)}
			}
			all = append(all, &e)
		}
		if err := image.WriteAll(d, image.PSTree, 0, all...); err != nil {
			t.Fatal(err)
		}
		return d
	}
	long := func(t *testing.T) image.Dir { // many runs of pages
		d := load(t, "testdata/criu/state")
		tree, err := image.ReadPSTree(d)
		if err != nil {
			t.Fatal(err)
		}
		mm := new(entry.MM)
		if err := image.ReadOne(d, image.MM, uint64(tree[0].PID), mm); err != nil {
			t.Fatal(err)
		}
		const start, page = 0x10000000, 0x1000
		room := mm.VMAs[0]
		room.Start, room.End, room.PgOff, room.ShmID, room.Status, room.Flags, room.Prot = start, start+runs*2*page, 0, 0, 1|1<<9, 0x22, 3
		mm.VMAs = []entry.VMA{room}
		if err := image.WriteAll(d, image.MM, uint64(tree[0].PID), mm); err != nil {
			t.Fatal(err)
		}
		pages, err := d.Create(image.Pages.File(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pages.WriteAt([]byte{0}, runs*page-1); err != nil {
			t.Fatal(err)
		}
		if err := pages.Close(); err != nil {
			t.Fatal(err)
		}
		all := []entry.Message{&entry.PagemapHead{PagesID: 1}}
		for i := range uint64(runs) {
			all = append(all, &entry.PagemapEntry{Vaddr: start + i*2*page, NrPages: new(uint64(1)), Flags: new(uint32(4))})
		}
		if err := image.WriteAll(d, image.Pagemap, uint64(tree[0].PID), all...); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		name, prefix string
		dir          func(*testing.T) image.Dir
		at           int
	}{
		{"before anything", "inventory", wide, 1},
		{"tree", "pstree", wide, 1}, // of more than 100
		{"cores", "core-", wide, many / 2},
		{"runs of pages", "pagemap-", long, 3}, // of 14
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := &cancelling{Dir: c.dir(t), prefix: c.prefix, left: c.at, cancel: cancel}
			_, err := Make(ctx, d, Options{})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the plan: %v", err)
			}
			if d.left != 0 {
				t.Fatalf("there were %d reads of %s too few for a cancel", d.left, c.prefix)
			}
			const most = 2 // what was under way
			t.Logf("%d reads after the end", d.after)
			if d.after > most {
				t.Errorf("after its context had ended it read %d times", d.after)
			}
		})
	}
}
