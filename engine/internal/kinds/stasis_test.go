package kinds

import (
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"

	"github.com/google/go-cmp/cmp"
)

// TestBeyondCRIU encodes what no dump of CRIU's has, and decodes it again: the same, and where CRIU would restore it wrongly, a version
// that it refuses.
func TestBeyondCRIU(t *testing.T) {
	for _, c := range []struct {
		name, golden string
		change       func(*snapshot.Tree)
		version      uint32
	}{
		{"nothing", "state", func(*snapshot.Tree) {}, image.VersionV1_1},
		{"what CRIU ignores", "state", func(tree *snapshot.Tree) {
			task := tree.Root()
			task.CoreFilter = new(uint32(0x33))
			for i, thread := range task.Threads {
				thread.Scheduling.Affinity = []uint64{uint64(i) + 1, 1 << 63}
				thread.Scheduling.IOPrio = new(uint32(2<<13 | 4))
				thread.TimerSlack = new(uint64(1234567890123))
			}
			tree.Spaces[0].VMAs[6].Name = "my heap"
			tree.Spaces[0].VMAs[7].Unbound = true
		}, image.VersionV1_1},
		{"semaphore", "files", func(tree *snapshot.Tree) {
			for _, f := range tree.Files {
				if o, ok := f.Object.(*snapshot.EventFD); ok {
					o.Semaphore = true
				}
			}
		}, image.VersionV1_1},
		{"realtime", "state", func(tree *snapshot.Tree) {
			tree.Root().Threads[1].Scheduling = snapshot.Scheduling{Policy: 1<<30 | 2, Priority: 7}
		}, image.VersionV1_1},
		{"shared memory and handlers", "files", func(tree *snapshot.Tree) {
			a, b := tree.Tasks[0], tree.Tasks[1]
			tree.Spaces = remove(tree.Spaces, func(s *snapshot.Space) bool { return s.ID == b.Space })
			tree.Handlers = remove(tree.Handlers, func(h *snapshot.Handlers) bool { return h.ID == b.Handlers })
			b.Space, b.Handlers = a.Space, a.Handlers
		}, image.VersionStasis},
		{"shared working directory", "files", func(tree *snapshot.Tree) {
			a, b := tree.Tasks[0], tree.Tasks[2]
			tree.FSContexts = remove(tree.FSContexts, func(c *snapshot.FSContext) bool { return c.ID == b.FS })
			b.FS = a.FS
		}, image.VersionStasis},
		{"threads apart", "state", func(tree *snapshot.Tree) {
			threads := tree.Root().Threads
			table, context := *tree.Tables[0], *tree.FSContexts[0]
			table.ID, context.ID, context.Umask = 77, 78, new(uint32(0o27))
			table.Slots = table.Slots[1:]
			threads[1].Table, threads[1].FS = 77, 78
			tree.Tables, tree.FSContexts = append(tree.Tables, &table), append(tree.FSContexts, &context)
		}, image.VersionStasis},
		{"leader that has exited", "state", func(tree *snapshot.Tree) {
			leader := tree.Root().Threads[0]
			*leader = snapshot.Thread{TID: leader.TID, Exited: true}
		}, image.VersionStasis},
		{"long auxiliary vector", "state", func(tree *snapshot.Tree) {
			tree.Spaces[0].Auxv = append(tree.Spaces[0].Auxv, 100, 1, 101, 2, 102, 3, 103, 4)
		}, image.VersionStasis},
		{"arm64", "state", func(tree *snapshot.Tree) {
			tree.Arch, tree.PageSize = snapshot.ARM64, 65536
			s := tree.Spaces[0]
			s.Auxv = []uint64{6, 65536}
			s.VMAs = []snapshot.VMA{{Range: snapshot.Range{Start: 0x10000, End: 0x30000}, Kind: snapshot.AnonPrivate, Prot: 3, Flags: 0x22}}
			s.Guards = []snapshot.Range{{Start: 0x10000, End: 0x20000}}
			for i, thread := range tree.Root().Threads {
				regs := &snapshot.ARM64Registers{SP: 1, PC: 2, PState: 3, TLS: 4, FPSR: 5, FPCR: 6}
				regs.X[30], regs.V[63] = 7, 8
				if i > 0 {
					regs.PAC = &snapshot.PACKeys{Address: &snapshot.PACAddressKeys{IB: [2]uint64{1, 2}, Enabled: 3}, Generic: &[2]uint64{4, 5}}
				}
				thread.Registers = regs
			}
		}, image.VersionV1_1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, tree := decode(t, open(t, "../plan/testdata/criu/"+c.golden))
			c.change(tree)
			r := new(images.Report)
			set := Encode(tree, r)
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			if set.Inventory.ImgVersion != c.version {
				t.Errorf("version %#x, want %#x", set.Inventory.ImgVersion, c.version)
			}
			out := image.NewMemDir(nil)
			if err := set.Write(out); err != nil {
				t.Fatal(err)
			}
			_, again := decode(t, out)
			if diff := cmp.Diff(tree, again); diff != "" {
				t.Errorf("-before +after:\n%s", diff)
			}
		})
	}
}

func remove[T any](list []*T, is func(*T) bool) []*T {
	var left []*T
	for _, x := range list {
		if !is(x) {
			left = append(left, x)
		}
	}
	return left
}

// TestNoPlace: what images have no place for is an error of the dump, and not lost.
func TestNoPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*snapshot.Tree)
	}{
		{"pid namespace", func(tree *snapshot.Tree) { tree.Root().PID = append(tree.Root().PID, 1) }},
		{"name", func(tree *snapshot.Tree) { tree.Root().Comm = "sixteen bytes ab" }},
		{"missing table of a thread", func(tree *snapshot.Tree) { tree.Root().Threads[1].Table = 9 }},
		{"missing directory of a thread", func(tree *snapshot.Tree) { tree.Root().Threads[1].FS = 9 }},
		{"exited thread", func(tree *snapshot.Tree) { tree.Root().Threads[1].Exited = true }},
		{"AMX", func(tree *snapshot.Tree) {
			x := &tree.Root().Threads[1].Registers.(*snapshot.AMD64Registers).FPU
			x.Used |= 1 << 18
			x.Components = append(x.Components, snapshot.XComponent{Number: 18, Data: make([]byte, 8192)})
		}},
		{"deadline", func(tree *snapshot.Tree) { tree.Root().Threads[1].Scheduling.Policy = 6 }},
		{"seccomp", func(tree *snapshot.Tree) { tree.Root().Threads[1].Seccomp = snapshot.SeccompFilter }},
		{"mapping", func(tree *snapshot.Tree) { tree.Spaces[0].VMAs[3].Kind = 99 }},
		{"file", func(tree *snapshot.Tree) { tree.Files[0].Object = nil }},
		{"missing file", func(tree *snapshot.Tree) { tree.Tables[0].Slots[0].File = 99 }},
		{"missing space", func(tree *snapshot.Tree) { tree.Spaces = nil }},
		{"missing handlers", func(tree *snapshot.Tree) { tree.Handlers = nil }},
		{"missing table", func(tree *snapshot.Tree) { tree.Tables = nil }},
		{"missing directory", func(tree *snapshot.Tree) { tree.FSContexts = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, tree := decode(t, open(t, "../plan/testdata/criu/state"))
			c.change(tree)
			r := new(images.Report)
			Encode(tree, r)
			if r.Empty() {
				t.Error("it was encoded")
			}
		})
	}
}
