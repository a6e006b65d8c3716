package plan

import (
	"fmt"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/kinds"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// grow makes a dump bigger in one way: n of something.
var grow = []struct {
	what string
	f    func(tree *snapshot.Tree, n int)
}{
	{"processes", func(tree *snapshot.Tree, n int) {
		root := tree.Root()
		for i := range n {
			t := *root
			id := snapshot.ObjectID(1000 + i)
			t.PID, t.Parent = snapshot.PID{100000 + i}, root.PID.Num()
			thread := *root.Threads[0]
			thread.TID = t.PID
			t.Threads, t.Timers = []*snapshot.Thread{&thread}, nil
			t.Space, t.Table, t.FS, t.Handlers = id, id, id, id
			space, table, fs, handlers := *tree.Spaces[0], *tree.Tables[0], *tree.FSContexts[0], *tree.Handlers[0]
			space.ID, table.ID, fs.ID, handlers.ID = id, id, id, id
			tree.Tasks, tree.Spaces, tree.Tables = append(tree.Tasks, &t), append(tree.Spaces, &space), append(tree.Tables, &table)
			tree.FSContexts, tree.Handlers = append(tree.FSContexts, &fs), append(tree.Handlers, &handlers)
		}
	}},
	{"threads", func(tree *snapshot.Tree, n int) {
		root := tree.Root()
		for i := range n {
			thread := *root.Threads[1]
			thread.TID = snapshot.PID{100000 + i}
			root.Threads = append(root.Threads, &thread)
		}
	}},
	{"mappings", func(tree *snapshot.Tree, n int) {
		s := tree.Spaces[0]
		var low []snapshot.VMA
		for i := range n {
			at := 0x10000000 + uint64(i)*0x2000
			low = append(low, snapshot.VMA{Range: snapshot.Range{Start: at, End: at + 0x1000}, Kind: snapshot.AnonPrivate, Prot: 3, Flags: 0x22})
		}
		for i := range s.VMAs {
			if s.VMAs[i].Start > 0x10000000 {
				s.VMAs = append(append(append([]snapshot.VMA{}, s.VMAs[:i]...), low...), s.VMAs[i:]...)
				return
			}
		}
	}},
	{"descriptors", func(tree *snapshot.Tree, n int) {
		for i := range n {
			id := snapshot.FileID(1000 + i)
			tree.Files = append(tree.Files, &snapshot.File{ID: id, Flags: 2, Object: &snapshot.EventFD{}})
			tree.Tables[0].Slots = append(tree.Tables[0].Slots, snapshot.Slot{FD: 1000 + i, File: id})
		}
	}},
}

// BenchmarkMake shows that plans cost no more for each of a thousand than for each of ten.
func BenchmarkMake(b *testing.B) {
	for _, g := range grow {
		for _, n := range []int{1, 10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s=%d", g.what, n), func(b *testing.B) {
				d := load(b, "testdata/criu/state")
				r := new(images.Report)
				tree := kinds.Decode(images.Read(d, r), r)
				// Low addresses are where the benchmark puts mappings.
				s := tree.Spaces[0]
				for i := range s.VMAs {
					if v := &s.VMAs[i]; v.Start > 0x10000000 && v.Start < 0x40000000 {
						s.VMAs = append(s.VMAs[:i:i], s.VMAs[i+1:]...)
						break
					}
				}
				g.f(tree, n)
				if err := kinds.Encode(tree, r).Write(d); err != nil || !r.Empty() {
					b.Fatal(err, r.Err())
				}
				for i, t := range tree.Tasks {
					empty := []entry.Message{&entry.PagemapHead{PagesID: uint32(i + 1)}}
					if err := image.WriteAll(d, image.Pagemap, uint64(t.PID.Num()), empty...); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Make(b.Context(), d, Options{}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/each")
			})
		}
	}
}
