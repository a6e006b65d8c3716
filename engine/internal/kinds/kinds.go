// Package kinds is the table of the kinds of state: which there are, and in which order they go. Adding a kind is a package of
// engine/internal/state and a line here.
//
// # Four arrows
//
//	kernel ──Collect──▶ snapshot ──Encode──▶ images ──Decode──▶ snapshot ──Apply──▶ kernel
//
// Encode and Decode are there, and pure. They work on a whole tree, since much of a tree is shared between its tasks, and they
// report rather than fail. Collect and Apply are to come. They are of one process, since that is what the tracer holds, and they fail
// with the first error, since a half-collected process is good for nothing:
//
//	func Collect(p *remote.Process, dir proc.Dir, tree *snapshot.Tree, task *snapshot.Task) error
//	func Apply(p *remote.Process, dir proc.Dir, tree *snapshot.Tree, task *snapshot.Task) error
//
// A Collect that finds something shared looks it up in the tree by its number, which the kind objects has given it with kcmp, and
// collects it only if it is not there. Kinds of files have two more instead of Apply, since files are opened before there is
// a process: Open, in the engine, and, where it needs a task, Finish.
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
	"stasis.example/engine/internal/state/sched"
	"stasis.example/engine/internal/state/signalfd"
	"stasis.example/engine/internal/state/signals"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/state/timerfd"
	"stasis.example/engine/internal/state/timers"
	"stasis.example/engine/internal/state/tty"
)

// An Apply says when in a restore a kind is applied.
type Apply uint8

// The moments, in order. All processes pass one before any passes the next, but for memory, which a child that shares pages with
// its parent has to be forked after.
const (
	ApplyNever   Apply = iota // it is of the dump itself, or package plan has turned it into something else
	ApplyOpen                 // in the engine, before there is a process: what can fail for want of a file fails here
	ApplyShape                // forks, sessions, groups, zombies
	ApplyMemory               // mappings and pages
	ApplyProcess              // one batch per process, with all rights
	ApplyThreads              // threads are made, one batch each
	ApplyLimits               // from outside: what would have forbidden the steps before
	ApplyResume               // registers and masks; then the process runs
)

// A Kind is a kind of state.
type Kind struct {
	Name string

	// Encode turns what a snapshot has of the kind into entries; Decode is the reverse. Both are pure. Decode is for hostile
	// input: it reports what is wrong, and leaves a tree that other kinds can go on with.
	Encode func(from *snapshot.Tree, to *images.Set, r *images.Report)
	Decode func(from *images.Set, to *snapshot.Tree, r *images.Report)

	Apply Apply
	Why   string // it stands where it does
}

// All returns the kinds in the order in which they are encoded and decoded, and in which those of one moment are applied. What
// they collect, and in which order, is in the engine's table of collectors.
func All() []Kind {
	return []Kind{
		{"origin", origin.Encode, origin.Decode, ApplyNever,
			"the first: it sets the version of the images, which later kinds raise when they write what CRIU cannot read"},
		{"proctree", proctree.Encode, proctree.Decode, ApplyShape,
			"makes the tasks and threads, and their cores, which the others fill; on restore, zombies die before anybody is stopped, since the death of a group's last tie would wake the stopped"},
		{"objects", objects.Encode, objects.Decode, ApplyShape,
			"before everything that is shared: what has one number is in one place in images"},
		{"regs", regs.Encode, regs.Decode, ApplyResume,
			"applied last"},
		{"signals", signals.Encode, signals.Decode, ApplyProcess,
			"applied when all children that die have died, whose SIGCHLD is flushed first"},
		{"sched", sched.Encode, sched.Decode, ApplyLimits,
			"applied when pinning is over"},
		{"mm", mm.Encode, mm.Decode, ApplyMemory,
			"before everything whose arguments lie in memory"},
		{"fds", fds.Encode, fds.Decode, ApplyProcess,
			"before the kinds of files: it makes the list that they fill"},
		{"regfile", regfile.Encode, regfile.Decode, ApplyOpen,
			"opened first of all files: a fifo and a terminal have a name here, and mappings and working directories need theirs"},
		{"pipes", pipes.Encode, pipes.Decode, ApplyOpen, "after regfile, for the names of fifos"},
		{"eventfd", eventfd.Encode, eventfd.Decode, ApplyOpen, ""},
		{"signalfd", signalfd.Encode, signalfd.Decode, ApplyOpen, ""},
		{"tty", tty.Encode, tty.Decode, ApplyOpen, "after regfile, for the names of terminals"},
		{"epoll", epoll.Encode, epoll.Decode, ApplyProcess,
			"after fds: items are added in a task that has both descriptors, inner epoll files before those that watch them"},
		{"fs", fs.Encode, fs.Decode, ApplyProcess, "after fds: afterwards names mean something else"},
		{"attrs", attrs.Encode, attrs.Decode, ApplyProcess,
			"subreaper not before all processes are there: it decides who gets the orphans that the shape is made with"},
		{"timers", timers.Encode, timers.Decode, ApplyProcess, "late in the batch: they run from then on; a thread that one is for is there by then"},
		{"timerfd", timerfd.Encode, timerfd.Decode, ApplyProcess, "made with the files, armed late: they run from then on"},
		{"limits", limits.Encode, limits.Decode, ApplyLimits, "after all that a limit may forbid: descriptors, memory, threads, timers"},
		{"creds", creds.Encode, creds.Decode, ApplyThreads, "after all that needs rights, and before what a change of ids clears: death signal and dumpable"},
		{"threads", threads.Encode, threads.Decode, ApplyThreads, "after creds, see there; rseq the very last: from then on the kernel looks at it on every return to user mode"},
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
