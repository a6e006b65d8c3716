//go:build linux

package plan

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/kinds"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/testkit"
)

// amounts are what images may have a lot of without being large, each of it so that something else has to be looked up for it.
var amounts = []struct {
	what string
	f    func(tree *snapshot.Tree, n int)
}{
	{"files of the process itself", func(tree *snapshot.Tree, n int) {
		open(tree, n, func(int) snapshot.Object {
			return &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: fmt.Sprintf("/proc/%d/status", tree.Root().PID.Num())}}
		})
	}},
	{"epoll files", func(tree *snapshot.Tree, n int) {
		open(tree, n, func(i int) snapshot.Object {
			return &snapshot.Epoll{Items: []snapshot.EpollItem{{FD: 1000 + (i+1)%n, Events: 1}}}
		})
	}},
	{"terminals", func(tree *snapshot.Tree, n int) {
		for i := range n {
			tree.Terminals = append(tree.Terminals, &snapshot.Terminal{ID: uint32(i + 1), Kind: snapshot.ControllingTTY})
		}
		open(tree, n, func(i int) snapshot.Object { return &snapshot.TTY{Terminal: uint32(i + 1)} })
	}},
	{"pipes", func(tree *snapshot.Tree, n int) {
		for i := range n {
			tree.Pipes = append(tree.Pipes, &snapshot.Pipe{ID: snapshot.PipeID(i + 1), Capacity: 4096})
		}
		open(tree, n, func(i int) snapshot.Object { return &snapshot.PipeEnd{Pipe: snapshot.PipeID(i + 1)} })
	}},
	{"files without a name", func(tree *snapshot.Tree, n int) {
		for i := range n {
			tree.Ghosts = append(tree.Ghosts, &snapshot.Ghost{ID: snapshot.GhostID(i + 1), Mode: 0o100644})
		}
		open(tree, n, func(i int) snapshot.Object {
			return &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: "/gone"}, Ghost: snapshot.GhostID(i + 1)}
		})
	}},
	{"timers", func(tree *snapshot.Tree, n int) {
		for i := range n {
			tree.Root().Timers = append(tree.Root().Timers, snapshot.Timer{ID: uint32(1000 + i), Signal: 14, Thread: tree.Root().PID.Num(), Notify: 4})
		}
	}},
	{"mappings of files of their own", func(tree *snapshot.Tree, n int) {
		s := tree.Spaces[0]
		kernel := s.VMAs[len(s.VMAs)-1]
		s.VMAs = s.VMAs[:len(s.VMAs)-1]
		at := s.VMAs[len(s.VMAs)-1].End
		for i := range n {
			id := snapshot.FileID(1000 + i)
			tree.Files = append(tree.Files, &snapshot.File{ID: id, Object: &snapshot.Regular{Path: snapshot.Path{Mount: -1, Name: fmt.Sprintf("/lib/%d", i)}}})
			s.VMAs = append(s.VMAs, snapshot.VMA{Range: snapshot.Range{Start: at, End: at + 0x1000}, Kind: snapshot.FilePrivate, File: id, Prot: 1, Flags: 2})
			at += 0x2000
		}
		s.VMAs = append(s.VMAs, kernel)
	}},
}

// open opens files of a kind in the root.
func open(tree *snapshot.Tree, n int, object func(i int) snapshot.Object) {
	for i := range n {
		id := snapshot.FileID(1000 + i)
		tree.Files = append(tree.Files, &snapshot.File{ID: id, Flags: 2, Object: object(i)})
		tree.Tables[0].Slots = append(tree.Tables[0].Slots, snapshot.Slot{FD: 1000 + i, File: id})
	}
}

// Ten times as much of something takes about ten times as long to plan, or to refuse, and not a hundred times: images cannot keep
// whoever reads them busy for hours.
func TestAmounts(t *testing.T) {
	const tooMany = 40 // far from ten, since processors are not all the same all the time, and from a hundred
	few := 3_000
	if testkit.RaceDetector {
		few = 300
	}
	for _, a := range amounts {
		t.Run(a.what, func(t *testing.T) {
			little, much := planning(t, a.f, few), planning(t, a.f, 10*few)
			t.Logf("%v for %d, %v for %d", little, few, much, 10*few)
			if much > tooMany*little {
				t.Errorf("ten times as much takes %.0f times as long", float64(much)/float64(little))
			}
		})
	}
}

// planning returns how much of the processors' time it takes to plan images with n of something, the least of a few times.
func planning(t *testing.T, grow func(*snapshot.Tree, int), n int) time.Duration {
	t.Helper()
	d := load(t, "testdata/criu/state")
	r := new(images.Report)
	tree := kinds.Decode(images.Read(d, r), r)
	grow(tree, n)
	if err := kinds.Encode(tree, r).Write(d); err != nil {
		t.Fatal(err)
	}
	least := time.Hour
	for range 3 {
		began := used(t)
		_, _ = Make(t.Context(), d, Options{}) // some are refused, which takes as long
		least = min(least, used(t)-began)
	}
	return least
}

// used is the time of processors that this process has used. Unlike what a clock shows it does not grow with what others do meanwhile.
func used(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
