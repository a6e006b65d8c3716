//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// A freezerCgroup is a control group that stops the processes in it, of either version of cgroups.
type freezerCgroup struct {
	path  string
	state string // the file that is written to
	on    string // what stops the processes
	off   string
	tells string // the file that tells whether they have stopped
	word  string // when it contains this

	was bool // they were stopped before
}

func openFreezer(path string) (*freezerCgroup, error) {
	for _, g := range []freezerCgroup{
		{state: "freezer.state", on: "FROZEN", off: "THAWED", tells: "freezer.state", word: "FROZEN"},
		{state: "cgroup.freeze", on: "1", off: "0", tells: "cgroup.events", word: "frozen 1"},
	} {
		g.path = path
		text, err := os.ReadFile(filepath.Join(path, g.state))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("freezer cgroup: %w", err)
		}
		// One that is just being stopped is one that somebody wants stopped.
		word := strings.TrimSpace(string(text))
		g.was = word == g.on || word == "FREEZING"
		return &g, nil
	}
	return nil, fmt.Errorf("%s is no freezer cgroup: it has neither freezer.state (version 1) nor cgroup.freeze (version 2); "+
		"the root of a hierarchy cannot be frozen, a directory below it can: %w", path, unix.EINVAL)
}

func (g *freezerCgroup) write(word string) error {
	// Not os.WriteFile, which would create a file that is not there.
	f, err := os.OpenFile(filepath.Join(g.path, g.state), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(word)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("freezer cgroup: %w", err)
	}
	return nil
}

// put puts the cgroup into the state in which it was found.
func (g *freezerCgroup) put() error {
	if g.was {
		return g.write(g.on)
	}
	return g.write(g.off)
}

// wait waits until all processes in the cgroup have stopped.
func (g *freezerCgroup) wait(tr *ptrace.Tracer) error {
	const patience = 10 * time.Second
	deadline := time.Now().Add(patience)
	for pause := int64(0); ; pause = min(2*pause+1000, 1e6) {
		text, err := os.ReadFile(filepath.Join(g.path, g.tells))
		if err != nil {
			return fmt.Errorf("freezer cgroup: %w", err)
		}
		if strings.Contains(string(text), g.word) {
			return nil
		}
		if err := tr.Context().Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("freezer cgroup %s: not all of its processes stop: %w", g.path, ptrace.ErrTimeout)
		}
		// A process that was waiting in the kernel may want to be told twice (version 1).
		if err := g.write(g.on); err != nil {
			return err
		}
		tr.Kernel().Pause(pause)
	}
}

// processes returns those in the cgroup and in all below it.
func (g *freezerCgroup) processes() (map[int]bool, error) {
	pids := make(map[int]bool)
	err := filepath.WalkDir(g.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "cgroup.procs" {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, unix.EOPNOTSUPP) { // a cgroup of threads: its processes are those of the one above
			return nil
		}
		if err != nil {
			return err
		}
		for word := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("%s: %q is no pid", path, word)
			}
			pids[pid] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("freezer cgroup: %w", err)
	}
	return pids, nil
}

// byCgroup stops the tree by its freezer cgroup. While nothing in there moves, all of it that is of the tree is asked to stop;
// then the cgroup lets go, and everything has stopped before it has executed an instruction: only processes that are not in a
// frozen cgroup can do what a dump asks of them. Children of vfork are left out, since their parents stop only when they have
// executed a program; they are stopped after that, like those outside of the cgroup.
func (d *dump) byCgroup(tr *ptrace.Tracer) error {
	g, err := openFreezer(d.cgroup)
	if err != nil {
		return err
	}
	d.undo.push(g.put)
	if err := g.write(g.on); err != nil {
		return err
	}
	if err := g.wait(tr); err != nil {
		return err
	}
	pids, err := g.processes()
	if err != nil {
		return err
	}
	if !pids[d.pid] {
		return fmt.Errorf("process %d is not in the freezer cgroup %s: name the one that it is in: %w", d.pid, d.cgroup, unix.EINVAL)
	}
	if err := d.seizeBelow(tr, d.pid, pids); err != nil {
		return err
	}
	if err := g.write(g.off); err != nil {
		return err
	}
	d.freezer = g
	return nil
}

// seizeBelow asks a process and those below it to stop, as far as they are in a set.
func (d *dump) seizeBelow(tr *ptrace.Tracer, pid int, in map[int]bool) error {
	dir := d.tree.Proc.Process(pid)
	tids, err := dir.Threads()
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, tid := range tids {
		thread := d.tree.Proc.Thread(pid, tid)
		stat, err := thread.Stat()
		if gone(err) || err == nil && (stat.State == 'Z' || stat.State == 'X') {
			continue
		}
		if err != nil {
			return err
		}
		if in[pid] {
			if err := tr.SeizeEarly(tid); err != nil {
				return err
			}
		}
		children, err := thread.Children()
		if err != nil {
			return err
		}
		waits := len(children) > 0 && remote.InVFork(pid, tid)
		for _, child := range children {
			if waits {
				if same, err := d.kernel.Same(tid, child, linux.SameVM, 0, 0); err == nil && same {
					continue
				}
			}
			if err := d.seizeBelow(tr, child, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepFrozen makes sure that a tree which somebody had frozen before the dump does not run when it is let go: the last step
// pushed, so the first to be undone.
func (d *dump) keepFrozen() {
	if !d.foundFrozen() {
		return
	}
	d.undo.push(func() error {
		var errs []error
		for p := range d.tree.Alive() {
			errs = append(errs, p.Remote.Restore())
		}
		return errors.Join(append(errs, d.freezer.put())...)
	})
}

func (d *dump) foundFrozen() bool { return d.freezer != nil && d.freezer.was }

// checkCgroups looks whether the tree is in other control groups than this program: they are not saved, which whoever dumps
// has to know.
func (d *dump) checkCgroups() error {
	if d.cgroups == rpc.CgroupModeIgnore {
		return nil
	}
	self := d.tree.Proc.Self()
	own, err := self.Cgroup()
	if err != nil {
		return err
	}
	text, err := self.CgroupText()
	if err != nil {
		return err
	}
	for p := range d.tree.Alive() {
		if same, err := p.Dir.HasCgroupText(text); err != nil {
			return err
		} else if same {
			continue
		}
		theirs, err := p.Dir.Cgroup()
		if err != nil {
			return err
		}
		for _, g := range theirs {
			if slices.ContainsFunc(own, func(o proc.Cgroup) bool { return o.ID == g.ID && o.Path == g.Path }) {
				continue
			}
			name := strings.Join(g.Controllers, ",") + ":" + g.Path
			if d.cgroups != rpc.CgroupModeDefault {
				d.tree.Report.Unsupported(p.Where(), "it is in the control group %s, which cannot be saved; --manage-cgroups=ignore leaves it out", name)
				continue
			}
			d.log.add(logWarn, "dump", "%s is in the control group %s, which is not saved: it will come back in that of whoever restores it (as with --manage-cgroups=ignore)", p.Where(), name)
		}
	}
	return nil
}
