//go:build amd64

package engine

import (
	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/state/attrs"
	"stasis.example/engine/internal/state/creds"
	"stasis.example/engine/internal/state/epoll"
	"stasis.example/engine/internal/state/fds"
	"stasis.example/engine/internal/state/fs"
	"stasis.example/engine/internal/state/limits"
	"stasis.example/engine/internal/state/sched"
	"stasis.example/engine/internal/state/signals"
	"stasis.example/engine/internal/state/threads"
	"stasis.example/engine/internal/state/timers"
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
		{name: "login uid", task: attrs.LoginUID, why: "by way of /proc, before the root directory is another"},
		{name: "fs", task: fs.Apply, why: "before the credentials: a chroot is a right"},
		{name: "fds", task: fds.Apply, why: "after all that works with files at our numbers"},
		{name: "membarrier", task: threads.Membarrier, why: "with one thread the kernel has nobody to wait for"},
	}
}

// apart returns what those threads are given that have something for themselves, when all threads of their process are there. Until
// then they have copies of what the process had, or of what it began with, our numbers among them.
func apart() []applier {
	return []applier{
		{name: "fs", thread: fs.ApplyThread, why: "before the process closes our numbers"},
		{name: "fds", thread: fds.ApplyThread, why: "after all that works with files at our numbers"},
	}
}

// together returns what is put back when all threads are there, in order: first all of the process, then all of each thread.
// Rights are lost on the way, so what needs them comes before.
func together() []applier {
	return []applier{
		{name: "fds", task: fds.CloseOurs, why: "when no process needs our numbers: several may share a table"},
		{name: "late files", task: fds.OpenLate, why: "when all threads are there, and the number that a file gets is known"},
		{name: "epoll", task: epoll.Apply, why: "when descriptors have their numbers, by which the kernel knows what is watched"},
		{name: "terminals", task: tty.Apply, why: "when all process groups are there, and before the credentials"},
		{name: "owners", task: fds.Owners, why: "when everybody who can be an owner is there, and before the credentials"},
		{name: "files of threads", thread: fds.Finish, why: "like the above, of threads that have descriptors of their own"},
		{name: "epoll of threads", thread: epoll.ApplyThread},
		{name: "signals", task: signals.Apply, why: "when children that die have died, which raises signals"},
		{name: "timers", task: timers.Apply, why: "made before limits, of which they take"},
		{name: "overruns", task: timers.Overruns, why: "takes the signals of timers: before others wait, and when it is settled which are ignored"},
		{name: "signals that wait", task: signals.Queue, thread: signals.QueueThread, why: "after dispositions: one that ignores empties the queue"},
		{name: "scheduling", thread: sched.Apply, why: "before credentials"},
		{name: "attributes", task: attrs.Apply},
		{name: "limits", thread: limits.Apply, why: "by the last thread, after all that they could forbid, before credentials"},
		{name: "threads", thread: threads.Apply},
		{name: "credentials", task: creds.Look, thread: creds.Apply, why: "after all that takes rights"},
		{name: "dumpable", thread: attrs.Dumpable, why: "by the last thread, after the credentials of all, whose change clears it"},
		{name: "death signal", thread: threads.DeathSignal, why: "after credentials, whose change clears it"},
		{name: "clocks of timers", thread: timers.Arm, why: "by the last thread, late: time goes on for them from then on"},
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
