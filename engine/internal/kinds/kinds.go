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
	Of   scope

	// Encode turns what a snapshot has of the kind into entries; Decode is the reverse. Both are pure. Decode is for hostile
	// input: it reports what is wrong, and leaves a tree that other kinds can go on with.
	Encode func(from *snapshot.Tree, to *images.Set, r *images.Report)
	Decode func(from *images.Set, to *snapshot.Tree, r *images.Report)

	Why string // it stands where it does
}

// A scope is what the entries of a kind are of.
type scope uint8

const (
	perTree    scope = iota + 1
	perProcess       // of one process, and none of another's is needed to encode them
)

// All returns the kinds in the order in which they are encoded and decoded.
func All() []Kind {
	return []Kind{
		{"origin", perTree, origin.Encode, origin.Decode, "the first: it sets the version of the images, which later kinds raise when they write what CRIU cannot read"},
		{"proctree", perTree, proctree.Encode, proctree.Decode, "makes the tasks and threads, and their cores, which the others fill"},
		{"objects", perTree, objects.Encode, objects.Decode, "before everything that is shared: what has one number is in one place in images"},
		{"regs", perProcess, regs.Encode, regs.Decode, ""},
		{"signals", perProcess, signals.Encode, signals.Decode, ""},
		{"sched", perProcess, sched.Encode, sched.Decode, ""},
		{"mm", perProcess, mm.Encode, mm.Decode, ""},
		{"fds", perTree, fds.Encode, fds.Decode, "before the kinds of files: it makes the list that they fill"},
		{"regfile", perTree, regfile.Encode, regfile.Decode, "the first kind of file: a fifo and a terminal have a name here"},
		{"pipes", perTree, pipes.Encode, pipes.Decode, "after regfile, for the names of fifos"},
		{"eventfd", perTree, eventfd.Encode, eventfd.Decode, ""},
		{"signalfd", perTree, signalfd.Encode, signalfd.Decode, ""},
		{"rpcsock", perTree, rpcsock.Encode, rpcsock.Decode, ""},
		{"tty", perTree, tty.Encode, tty.Decode, "after regfile, for the names of terminals"},
		{"epoll", perTree, epoll.Encode, epoll.Decode, ""},
		{"fs", perTree, fs.Encode, fs.Decode, ""},
		{"attrs", perProcess, attrs.Encode, attrs.Decode, ""},
		{"timers", perProcess, timers.Encode, timers.Decode, ""},
		{"timerfd", perTree, timerfd.Encode, timerfd.Decode, ""},
		{"limits", perProcess, limits.Encode, limits.Decode, ""},
		{"creds", perProcess, creds.Encode, creds.Decode, ""},
		{"threads", perProcess, threads.Encode, threads.Decode, ""},
	}
}

// Decode turns entries into a snapshot. With problems in the report the snapshot has holes, and is good for nothing but to be
// looked at for more problems.
func Decode(from *images.Set, r *images.Report) *snapshot.Tree {
	tree := &snapshot.Tree{}
	for _, k := range All() {
		if r.Stopped() {
			break
		}
		k.Decode(from, tree, r)
	}
	return tree
}
