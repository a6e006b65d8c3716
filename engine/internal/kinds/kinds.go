// Package kinds is the table of the kinds of state: which there are, and in which order they go. Adding a kind is a package of
// engine/internal/state and a line here.
//
// # Four arrows
//
//	kernel ──Collect──▶ snapshot ──Encode──▶ images ──Decode──▶ snapshot ──Apply──▶ kernel
//
// Encode and Decode are pure. They work on a whole tree, since much of a tree is shared between its tasks, and they report
// rather than fail. Collect and Apply are of the kernel, and are listed in package engine (collectors.go, appliers.go), in the
// orders that these need: a Collect of the whole tree, an Apply of one process or one thread. Kinds of files have an Open instead, since
// files are opened before there is a process. What package plan has turned into steps, the shape of the tree, no kind applies.
package kinds

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/attrs"
	"stasis.example/engine/internal/state/creds"
	"stasis.example/engine/internal/state/epoll"
	"stasis.example/engine/internal/state/eventfd"
	"stasis.example/engine/internal/state/fds"
	"stasis.example/engine/internal/state/fs"
	"stasis.example/engine/internal/state/limits"
	"stasis.example/engine/internal/state/mm"
	"stasis.example/engine/internal/state/objects"
	"stasis.example/engine/internal/state/origin"
	"stasis.example/engine/internal/state/pipes"
	"stasis.example/engine/internal/state/proctree"
	"stasis.example/engine/internal/state/regfile"
	"stasis.example/engine/internal/state/regs"
	"stasis.example/engine/internal/state/rpcsock"
	"stasis.example/engine/internal/state/sched"
	"stasis.example/engine/internal/state/signalfd"
	"stasis.example/engine/internal/state/signals"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/state/timerfd"
	"stasis.example/engine/internal/state/timers"
	"stasis.example/engine/internal/state/tty"
)

// A Kind is a kind of state.
type Kind struct {
	Name string

	// Encode turns what a snapshot has of the kind into entries; Decode is the reverse. Both are pure. Decode is for hostile
	// input: it reports what is wrong, and leaves a tree that other kinds can go on with.
	Encode func(from *snapshot.Tree, to *images.Set, r *images.Report)
	Decode func(from *images.Set, to *snapshot.Tree, r *images.Report)

	Why string // it stands where it does
}

// All returns the kinds in the order in which they are encoded and decoded.
func All() []Kind {
	return []Kind{
		{"origin", origin.Encode, origin.Decode, "the first: it sets the version of the images, which later kinds raise when they write what CRIU cannot read"},
		{"proctree", proctree.Encode, proctree.Decode, "makes the tasks and threads, and their cores, which the others fill"},
		{"objects", objects.Encode, objects.Decode, "before everything that is shared: what has one number is in one place in images"},
		{"regs", regs.Encode, regs.Decode, ""},
		{"signals", signals.Encode, signals.Decode, ""},
		{"sched", sched.Encode, sched.Decode, ""},
		{"mm", mm.Encode, mm.Decode, ""},
		{"fds", fds.Encode, fds.Decode, "before the kinds of files: it makes the list that they fill"},
		{"regfile", regfile.Encode, regfile.Decode, "the first kind of file: a fifo and a terminal have a name here"},
		{"pipes", pipes.Encode, pipes.Decode, "after regfile, for the names of fifos"},
		{"eventfd", eventfd.Encode, eventfd.Decode, ""},
		{"signalfd", signalfd.Encode, signalfd.Decode, ""},
		{"rpcsock", rpcsock.Encode, rpcsock.Decode, ""},
		{"tty", tty.Encode, tty.Decode, "after regfile, for the names of terminals"},
		{"epoll", epoll.Encode, epoll.Decode, ""},
		{"fs", fs.Encode, fs.Decode, ""},
		{"attrs", attrs.Encode, attrs.Decode, ""},
		{"timers", timers.Encode, timers.Decode, ""},
		{"timerfd", timerfd.Encode, timerfd.Decode, ""},
		{"limits", limits.Encode, limits.Decode, ""},
		{"creds", creds.Encode, creds.Decode, ""},
		{"threads", threads.Encode, threads.Decode, ""},
	}
}

// Encode turns a snapshot into entries.
func Encode(from *snapshot.Tree, r *images.Report) *images.Set {
	set := &images.Set{}
	for _, k := range All() {
		k.Encode(from, set, r)
	}
	return set
}

// Decode turns entries into a snapshot. With problems in the report the snapshot has holes, and is good for nothing but to be
// looked at for more problems.
func Decode(from *images.Set, r *images.Report) *snapshot.Tree {
	tree := &snapshot.Tree{}
	for _, k := range All() {
		k.Decode(from, tree, r)
	}
	return tree
}
