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

// collectors returns the kinds of state in the order in which they are collected.
func collectors() []collector {
	return []collector{
		{"origin", origin.Collect, "the first: this program's own namespaces have the same numbers in every dump"},
		{"proctree", proctree.Collect, "makes the tasks and threads that the others fill"},
		{"objects", objects.Collect, "before everything that is shared: what has one number is collected once"},
		{"regs", regs.Collect, ""},
		{"signals", signals.Collect, ""},
		{"sched", sched.Collect, ""},
		{"limits", limits.Collect, ""},
		{"attrs", attrs.Collect, ""},
		{"creds", creds.Collect, ""},
		{"threads", threads.Collect, ""},
		{"fds", fds.Collect, "before the kinds of files: it makes the list that they claim from"},
		{"fs", fs.Collect, "before regfile, which claims the directories"},
		{"mm", mm.Collect, "before regfile, which claims the files that are mapped"},
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
	for _, c := range collectors() {
		if err := c.collect(t); err != nil {
			// What is known to be out of the question by now may be the reason.
			return errors.Join(t.Report.Err(), fmt.Errorf("collect %s: %w", c.name, err))
		}
	}
	t.Forget()
	return nil
}
