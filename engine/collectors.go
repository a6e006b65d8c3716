//go:build amd64

package engine

import (
	"errors"
	"fmt"

	"stasis.example/engine/internal/collect"
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

// A collector takes one kind of state.
type collector struct {
	name    string
	collect func(*collect.Tree) error
	why     string // it stands where it does
}

// firstCollectors returns the kinds that all others rest on, in order.
func firstCollectors() []collector {
	return []collector{
		{"origin", origin.Collect, "the first: this program's own namespaces have the same numbers in every dump"},
		{"proctree", proctree.Collect, "makes the tasks and threads that the others fill"},
		{"objects", objects.Collect, "before everything that is shared: what has one number is collected once"},
	}
}

// nextCollectors returns the kinds that fill tasks and threads, some of which ask what only the thread that traces may, and those that
// find files, in order.
func nextCollectors() []collector {
	return []collector{
		{"regs", regs.Collect, ""},
		{"signals", signals.Collect, ""},
		{"sched", sched.Collect, ""},
		{"limits", limits.Collect, ""},
		{"attrs", attrs.Collect, ""},
		{"creds", creds.Collect, ""},
		{"threads", threads.Collect, ""},
		{"fds", fds.Collect, "before the kinds of files: it makes the list that they claim from"},
		{"fs", fs.Collect, "before regfile, which claims the directories"},
	}
}

// besideCollectors returns the kinds that are collected at the same time by another thread: to tell of mappings takes the kernel as
// long as all of the above.
func besideCollectors() []collector {
	return []collector{{"mappings", mm.Collect, ""}}
}

// lastCollectors returns the kinds that come when all of these are done, in order.
func lastCollectors() []collector {
	return []collector{
		{"mm", mm.Complete, "before regfile, which claims the files that are mapped"},
		{"regfile", regfile.Collect, "the first kind of file: it gives names to those that are more than a name"},
		{"pipes", pipes.Collect, "after regfile, for the names of fifos"},
		{"eventfd", eventfd.Collect, ""},
		{"signalfd", signalfd.Collect, ""},
		{"timerfd", timerfd.Collect, ""},
		{"rpcsock", rpcsock.Collect, ""},
		{"tty", tty.Collect, "after regfile, which leaves terminals to it"},
		{"epoll", epoll.Collect, ""},
		{"files", fds.List, "after all kinds of files: what none of them has claimed is refused"},
		{"timers", timers.Collect, "the last to be asked for inside: as little time as can be passes between"},
	}
}

// collectAll lets all kinds look at the tree.
func collectAll(t *collect.Tree) error {
	err := collectKinds(t, firstCollectors())
	if err == nil {
		beside := make(chan error, 1)
		go func() { beside <- collectKinds(t, besideCollectors()) }()
		err = errors.Join(collectKinds(t, nextCollectors()), <-beside)
	}
	if err == nil {
		err = collectKinds(t, lastCollectors())
	}
	if err != nil {
		// What is known to be out of the question by now may be the reason.
		return errors.Join(t.Report.Err(), err)
	}
	t.Forget()
	return nil
}

// collectKinds lets some kinds look at the tree, one after the other.
func collectKinds(t *collect.Tree, kinds []collector) error {
	for _, c := range kinds {
		if err := c.collect(t); err != nil {
			return fmt.Errorf("collect %s: %w", c.name, err)
		}
	}
	return nil
}
