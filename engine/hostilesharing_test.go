//go:build amd64

package engine

import (
	"stasis.example/image"
	"stasis.example/image/entry"
)

// thread is the number of the n-th thread of the root.
func thread(n int) func(*hostile) uint64 {
	return func(h *hostile) uint64 { return uint64(h.tree[0].Threads[n]) }
}

// inApart changes what the n-th thread of the root has for itself; other is what another one has.
func inApart(n, other int, change func(ids, other *entry.TaskKobjIDs)) func(*hostile) {
	return func(h *hostile) {
		var core entry.Core
		if err := image.ReadOne(h.dir, image.Core, thread(other)(h), &core); err != nil {
			h.t.Fatal(err)
		}
		each(image.Core, thread(n), func(h *hostile, _ int, c *entry.Core) {
			if c.IDs == nil || core.IDs == nil {
				h.t.Fatalf("threads %d and %d have nothing of their own", n, other)
			}
			change(c.IDs, core.IDs)
		})(h)
	}
}

// hostileApart is of the victim apart, whose first thread is followed by A, B or C, and so on, in some order: all have something
// that is not the first one's.
func hostileApart() []mutation {
	const core = "core-"
	return []mutation{
		{"another address space", inApart(1, 1, func(ids, _ *entry.TaskKobjIDs) { ids.VMID = 77 }), []string{core, "another address space"}},
		{"other handlers", inApart(1, 1, func(ids, _ *entry.TaskKobjIDs) { ids.SighandID = 77 }), []string{core, "other signal handlers"}},
		{"a table that is not there", inApart(1, 1, func(ids, _ *entry.TaskKobjIDs) { ids.FilesID = 77 }), []string{"fdinfo-77.img: the image is missing"}},
		{"a directory that is not there", inApart(1, 1, func(ids, _ *entry.TaskKobjIDs) { ids.FSID = 77 }), []string{"fs-", "the image is missing"}},
		{"a table of the number 0", inApart(1, 1, func(ids, _ *entry.TaskKobjIDs) { ids.FilesID = 0 }), []string{core, "the number 0"}},
		{"things that no thread can have come to have", circle, []string{core, "as no thread can"}},
		{"images of CRIU's version", each(image.Inventory, noID, func(_ *hostile, _ int, i *entry.Inventory) { i.ImgVersion = image.VersionV1_1 }),
			[]string{core, "images of this version cannot have"}},
	}
}

// circle lets A have the table of D. D has the directory of C, C the table of E, and E the directory of A.
func circle(h *hostile) {
	type both struct{ table, context uint32 }
	tables, pairs, has := make(map[uint32]int), make(map[both]int), make(map[int]both)
	for n := 1; n < len(h.tree[0].Threads); n++ {
		var core entry.Core
		if err := image.ReadOne(h.dir, image.Core, thread(n)(h), &core); err != nil {
			h.t.Fatal(err)
		}
		has[n] = both{core.IDs.FilesID, core.IDs.FSID}
		tables[core.IDs.FilesID]++
		pairs[has[n]]++
	}
	a, d := 0, 0
	for n, what := range has {
		switch {
		case pairs[what] == 2:
			a = n // or B, who is like A
		case tables[what.table] == 1:
			d = n
		}
	}
	inApart(a, d, func(ids, other *entry.TaskKobjIDs) { ids.FilesID = other.FilesID })(h)
}

// hostileApartShared is of the victim apart shared, whose children share with its threads: P a table, Q both, and R, as it was born, both,
// which it has left to its thread.
func hostileApartShared() []mutation {
	const stranger = "which cannot fork it"
	isP := func(c *sharingChild) bool { return len(c.Threads) == 1 && !c.ofThreads[c.ids.FSID] }
	isQ := func(c *sharingChild) bool { return len(c.Threads) == 1 && c.ofThreads[c.ids.FSID] }
	isR := func(c *sharingChild) bool { return len(c.Threads) == 2 }
	return []mutation{
		{"a directory of a sister's", inChild(isP, func(c, r *sharingChild) { c.ids.FSID = r.ids.FSID }), []string{"pstree.img", stranger}},
		{"a table of one thread and a directory of another", inChild(isP, func(c, r *sharingChild) { c.ids.FSID = r.second.FSID }), []string{"pstree.img", stranger}},
		{"another table of its parent's than its thread has", inChild(isR, func(c, _ *sharingChild) { c.ids.FilesID = c.root.FilesID }), []string{"pstree.img", stranger}},
		{"a table that is not there", inChild(isP, func(c, _ *sharingChild) { c.ids.FilesID = 77 }), []string{"fdinfo-77.img: the image is missing"}},
		{"a directory that is nobody's", inChild(isQ, func(c, _ *sharingChild) { c.ids.FSID = 77 }), []string{"fs-", "the image is missing"}},
		{"a table of its own that its parent's thread had", inChild(isR, func(c, _ *sharingChild) { c.ids.FilesID, c.ids.FSID = c.second.FilesID, c.second.FSID }), []string{"fs-", "has its own"}},
		{"images of CRIU's version", each(image.Inventory, noID, func(_ *hostile, _ int, i *entry.Inventory) { i.ImgVersion = image.VersionV1_1 }),
			[]string{"core-", "images of this version cannot have"}},
	}
}

// A sharingChild is a child of the victim apart shared.
type sharingChild struct {
	entry.PSTree
	ids       entry.TaskKobjIDs
	second    entry.TaskKobjIDs // of its second thread
	root      entry.TaskKobjIDs // of its parent
	ofThreads map[uint32]bool   // directories that threads of its parent have
}

// inChild changes one of the children; r is the one that has a thread.
func inChild(which func(*sharingChild) bool, change func(c, r *sharingChild)) func(*hostile) {
	return func(h *hostile) {
		var root entry.TaskKobjIDs
		if err := image.ReadOne(h.dir, image.IDs, h.root(), &root); err != nil {
			h.t.Fatal(err)
		}
		contexts := make(map[uint32]bool)
		for n := range h.tree[0].Threads[1:] {
			contexts[coreIDs(h, h.tree[0].Threads[n+1]).FSID] = true
		}
		var it, r *sharingChild
		for _, p := range h.tree[1:] {
			c := &sharingChild{PSTree: p, root: root, ofThreads: contexts}
			if err := image.ReadOne(h.dir, image.IDs, uint64(p.PID), &c.ids); err != nil {
				h.t.Fatal(err)
			}
			if len(p.Threads) > 1 {
				c.second, r = coreIDs(h, p.Threads[1]), c
			}
			if which(c) {
				it = c
			}
		}
		if it == nil || r == nil {
			h.t.Fatal("there is no such child")
		}
		change(it, r)
		if err := image.WriteAll(h.dir, image.IDs, uint64(it.PID), &it.ids); err != nil {
			h.t.Fatal(err)
		}
	}
}

// coreIDs are what a thread has for itself.
func coreIDs(h *hostile, tid uint32) entry.TaskKobjIDs {
	var core entry.Core
	if err := image.ReadOne(h.dir, image.Core, uint64(tid), &core); err != nil {
		h.t.Fatal(err)
	}
	if core.IDs == nil {
		h.t.Fatalf("thread %d has nothing of its own", tid)
	}
	return *core.IDs
}

// withIDs changes what a process of the tree has.
func withIDs(which func(ids, root *entry.TaskKobjIDs) bool, change func(ids, root *entry.TaskKobjIDs)) func(*hostile) {
	return func(h *hostile) {
		var root entry.TaskKobjIDs
		if err := image.ReadOne(h.dir, image.IDs, h.root(), &root); err != nil {
			h.t.Fatal(err)
		}
		changed := 0
		for i := range h.tree[1:] {
			each(image.IDs, func(h *hostile) uint64 { return uint64(h.tree[i+1].PID) }, func(_ *hostile, _ int, ids *entry.TaskKobjIDs) {
				if which(ids, &root) {
					change(ids, &root)
					changed++
				}
			})(h)
		}
		if changed == 0 {
			h.t.Fatal("there is no such process")
		}
	}
}

// hostileSharing is of the victim sharing, in which all but D have one memory.
func hostileSharing() []mutation {
	alone := func(ids, root *entry.TaskKobjIDs) bool { return ids.VMID != root.VMID }
	alike := func(ids, root *entry.TaskKobjIDs) bool { return ids.SighandID == root.SighandID }
	other := func(ids, root *entry.TaskKobjIDs) bool {
		return ids.VMID == root.VMID && ids.SighandID != root.SighandID
	}
	return []mutation{
		{"handlers of another memory", withIDs(alone, func(ids, root *entry.TaskKobjIDs) { ids.SighandID = root.SighandID }),
			[]string{"pstree.img: ", "shares its signal handlers"}},
		{"memory that is there twice", withIDs(alone, func(ids, root *entry.TaskKobjIDs) { ids.VMID = root.VMID }), []string{"mm-", "has its own"}},
		{"memory that is not there", withIDs(other, func(ids, _ *entry.TaskKobjIDs) { ids.VMID = 77 }), []string{"mm-", "the image is missing"}},
		{"handlers without the memory", withIDs(alike, func(ids, _ *entry.TaskKobjIDs) { ids.VMID = 77 }), []string{"mm-", "the image is missing"}},
		{"no memory", withIDs(other, func(ids, _ *entry.TaskKobjIDs) { ids.VMID = 0 }), []string{"ids-", "the number 0"}},
		{"a table that nobody has", withIDs(alike, func(ids, _ *entry.TaskKobjIDs) { ids.FilesID = 77 }), []string{"fdinfo-77.img: the image is missing"}},
	}
}
