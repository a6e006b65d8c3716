//go:build amd64

package engine

import (
	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/state/epoll"
	"stasis.example/engine/internal/state/fds"
	"stasis.example/engine/internal/state/fs"
	"stasis.example/engine/internal/state/mm"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/state/tty"
)

// An applier puts back one kind of state: of a process, of each thread, or both.
type applier struct {
	name   string
	task   func(*apply.Task) error
	thread func(*apply.Thread) error
	why    string // it stands where it does
}

// alone returns what is put back while a process has one thread, its memory and all rights, in order. What is added to
// batches runs when all have added theirs; then the threads are made.
func alone() []applier {
	return []applier{
		{name: "fs", task: fs.Apply, why: "before the credentials: a chroot is a right"},
		{name: "fds", task: fds.Apply, why: "after all that works with files at our numbers"},
		{name: "epoll", task: epoll.Apply, why: "when descriptors have their numbers, by which the kernel knows what is watched"},
		{name: "membarrier", task: threads.Membarrier, why: "with one thread the kernel has nobody to wait for"},
	}
}

// together returns what is put back when all threads are there, in order: first all of the process, then all of each thread.
// Rights are lost on the way, so what needs them comes before.
func together() []applier {
	return []applier{
		{name: "fds", task: fds.CloseOurs, why: "when no process needs our numbers: several may share a table"},
		{name: "terminals", task: tty.Apply, why: "when all process groups are there, and before the credentials"},
		{name: "owners", task: fds.Owners, why: "when everybody who can be an owner is there, and before the credentials"},
		{name: "threads", thread: threads.Apply},
		{name: "dumpable", thread: mm.Dumpable, why: "after credentials, whose change changes it"},
		{name: "death signal", thread: threads.DeathSignal, why: "after credentials, whose change clears it"},
		{name: "rseq", thread: threads.Register, why: "the last: the kernel looks at it from then on"},
	}
}

// applyAll lets kinds add to the batches of a process, and runs them.
func applyAll(kinds []applier, t *apply.Task) error {
	for _, k := range kinds {
		if k.task == nil {
			continue
		}
		if err := k.task(t); err != nil {
			return err
		}
	}
	for _, k := range kinds {
		if k.thread == nil {
			continue
		}
		for _, th := range t.Threads {
			if th.Exited {
				continue
			}
			if err := k.thread(th); err != nil {
				return err
			}
		}
	}
	return t.Run()
}
