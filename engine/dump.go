//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/pages"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/regfile"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// fate is what becomes of a tree that was dumped.
type fate int

const (
	killed fate = iota
	leftRunning
	leftStopped
)

// A dump is one dump of a tree.
type dump struct {
	pid      int
	fate     fate
	dir      image.Dir
	work     image.Dir // for the statistics
	log      *logger
	kernel   *linux.Kernel
	oldPages bool                                  // find pages as kernels before 6.7 have to
	socket   uint64                                // of the conversation, where a process of the tree has asked for the dump
	cgroup   string                                // the freezer cgroup that stops the tree, "" for none
	external []string                              // what is not the tree's own, as --external has it
	cgroups  rpc.CgroupMode                        // what is said of control groups
	cpuinfo  bool                                  // write of which CPU the images are
	buildIDs bool                                  // save those of programs and libraries
	ghosts   uint64                                // how many bytes a deleted file may have to be saved
	links    bool                                  // make names for deleted files that have others
	shellJob bool                                  // sessions and groups may be led from outside
	notify   func(stage string) (*rpc.Opts, error) // nil for nobody to be told
	stage    func(name string)                     // for who only wants to know

	freezer *freezerCgroup // that has stopped the tree
	tree    *collect.Tree
	copiers []*pages.Copier // of processes that have pages to be copied still
	buffer  pages.Buffer    // of the copiers, which copy one after the other
	large   []*collect.Process
	undo    undoStack
	stats   entry.DumpStats

	pageImages uint32 // that were made
}

// run dumps the tree, and reads as the order of events. Until the tree's fate is sealed everything can be taken back, and is
// when a step fails or the context ends.
func (d *dump) run(ctx context.Context) error {
	if err := d.tell("pre-dump"); err != nil {
		return err
	}
	d.tree = &collect.Tree{Kernel: d.kernel, Proc: proc.New(linux.Proc{}), Snapshot: &snapshot.Tree{}, Report: &images.Report{}, Outer: d.shellJob, RPCSocket: d.socket, External: d.external, BuildIDs: d.buildIDs, GhostLimit: d.ghosts, LinkRemap: d.links}
	defer d.release()
	return ptrace.Run(ctx, ptrace.Options{Kernel: d.kernel}, func(tr *ptrace.Tracer) error {
		err := d.frozen(tr)
		if undoErr := d.undo.undo(); undoErr != nil {
			d.log.add(logError, "dump", "the tree could not be put back in order: %v", undoErr)
			err = errors.Join(err, undoErr)
		}
		if err != nil {
			return errors.Join(err, regfile.Unlink(d.tree))
		}
		return nil
	})
}

// frozen is what happens on the thread that traces.
func (d *dump) frozen(tr *ptrace.Tracer) error {
	began := time.Now()
	if err := d.freeze(tr); err != nil {
		return err
	}
	d.stats.FreezingTime = microseconds(began)
	stopped := time.Now()
	d.log.info("%d processes stand still", len(d.tree.Processes))
	if err := d.checkCgroups(); err != nil {
		return err
	}
	if err := d.tell("query-ext-files"); err != nil {
		return err
	}

	if err := collectAll(d.tree); err != nil {
		return err
	}
	plan.Possible(d.tree.Snapshot, d.tree.Report)
	d.log.info("looked at from outside")
	if err := d.refuse(); err != nil {
		return err
	}
	// Who runs on need not wait for the images, unless somebody wants to see them before.
	early := d.fate == leftRunning && d.notify == nil
	im := newImager(d.tree, d.dir, early)
	if err := errors.Join(d.enter(im.process), im.finish()); err != nil {
		return err
	}
	if err := d.refuse(); err != nil {
		return err
	}
	d.log.info("asked from inside")
	if err := d.writePages(); err != nil {
		return err
	}
	d.log.info("pages written")
	if err := regfile.Write(d.tree, im.set(), d.dir); err != nil {
		return err
	}
	// Who is killed next may be killed where it is. If it does not come to that, it is put in order as after any failure.
	if d.fate != killed || d.notify != nil {
		for p := range d.tree.Alive() {
			if err := p.Remote.Restore(); err != nil {
				return err
			}
		}
	}
	if early {
		if err := d.undo.undo(); err != nil {
			return err
		}
		d.stats.FrozenTime = microseconds(stopped)
	}
	if err := im.complete(); err != nil {
		return err
	}
	if d.cpuinfo {
		if err := writeCPUInfo(d.dir); err != nil {
			return err
		}
	}
	if err := d.tell("post-dump"); err != nil {
		return err
	}
	if err := tr.Context().Err(); err != nil {
		return err
	}
	if !early {
		d.stats.FrozenTime = microseconds(stopped)
	}
	if err := writeStats(d.work, image.StatsDump, &entry.Stats{Dump: &d.stats}); err != nil {
		return err
	}
	if !early {
		if err := d.seal(); err != nil {
			return err
		}
	}
	d.log.info("%d pages written", d.stats.PagesWritten)
	return nil
}

// tell notifies of a stage; whoever is told can refuse to go on.
func (d *dump) tell(stage string) error {
	d.stage(stage)
	if d.notify == nil {
		return nil
	}
	opts, err := d.notify(stage)
	if err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	if opts != nil { // whoever answers query-ext-files may name some
		return refuseOptions(opts, false)
	}
	return nil
}

// refuse fails with everything that cannot be saved.
func (d *dump) refuse() error {
	for _, note := range d.tree.Report.Notes() {
		d.log.add(logWarn, "dump", "%s", note)
	}
	return d.tree.Report.Err()
}

// seal lets the tree's fate happen.
func (d *dump) seal() error {
	switch d.fate {
	case leftStopped:
		if err := d.signal(unix.SIGSTOP); err != nil {
			return err
		}
		err := d.undo.undo()
		if d.foundFrozen() { // and is again: it stops when somebody thaws it
			return err
		}
		return errors.Join(err, d.waitStopped())
	case killed:
		emptied := d.emptyLarge()
		err := d.signal(unix.SIGKILL)
		emptied()
		if err != nil {
			return err
		}
		// The leaders are let go with the thread that traced them.
		d.undo.forget()
		err = d.bury()
		for p := range d.tree.Alive() {
			p.Remote.Abandon()
		}
		return err
	}
	return d.undo.undo()
}

// signal sends a signal to all processes.
func (d *dump) signal(sig unix.Signal) error {
	var errs []error
	for p := range d.tree.Alive() {
		if err := unix.PidfdSendSignal(p.PIDFD, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("send %v to process %d: %w", sig, p.PID, err))
		}
	}
	return errors.Join(errs...)
}

// emptyLarge helps large processes that are about to be killed to give their memory back: it takes as long as a tenth of a dump, nobody
// else has the processor meanwhile, and a restore at once needs the room, and the numbers. It has to come between the signal and the
// moment in which the process itself begins with it, which is soon, so it is tried all the while from before the signal. What it returns
// is to be called when the signals are sent, and waits.
func (d *dump) emptyLarge() (finish func()) {
	if len(d.large) == 0 {
		return func() {}
	}
	begun, sent, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		left := slices.Clone(d.large)
		try := func() {
			left = slices.DeleteFunc(left, func(p *collect.Process) bool {
				return !errors.Is(linux.ReleaseMemory(p.PIDFD), unix.EINVAL) // which is of one that was not killed
			})
		}
		try()
		close(begun)
		for waiting := true; waiting && len(left) > 0; {
			select {
			case <-sent:
				waiting = false
			default:
			}
			try()
			runtime.Gosched()
		}
	}()
	<-begun
	return func() {
		close(sent)
		<-done
	}
}

// largeProcess is how many bytes a process has to have of its own to be a large one.
const largeProcess = 64 << 20

// bury waits for the threads that were killed, but for the leaders, which are others' to wait for. Left to themselves their
// numbers may be taken for some time after the process is gone and was waited for: the kernel frees them last
// (kernel/exit.c: release_task). A restore that follows at once would find them in use.
func (d *dump) bury() error {
	for p := range d.tree.Alive() {
		for _, th := range p.Remote.Threads {
			if th.TID == p.PID {
				continue
			}
			for {
				// It may have been about to stop once more.
				if _, err := th.Wait(); errors.Is(err, ptrace.ErrGone) || errors.Is(err, unix.ECHILD) {
					break
				} else if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// waitStopped waits until all processes have stopped.
func (d *dump) waitStopped() error {
	for p := range d.tree.Alive() {
		if err := awaitStop(d.kernel, p.PID, p.Dir); err != nil {
			return err
		}
	}
	return nil
}

// awaitStop waits until a process has stopped: a signal that was sent to one that stands still takes its time.
func awaitStop(k *linux.Kernel, pid int, dir proc.Dir) error {
	const patience = 10 * time.Second
	deadline := time.Now().Add(patience)
	for pause := int64(0); ; pause = min(2*pause+1000, 1e6) {
		stat, err := dir.Stat()
		if err != nil {
			return err
		}
		if stat.State == 'T' || stat.State == 'Z' {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not stop: %w", pid, ptrace.ErrTimeout)
		}
		k.Pause(pause)
	}
}

// release closes what is left open.
func (d *dump) release() {
	for _, c := range d.copiers { // of a dump that failed
		_ = errors.Join(c.Close(), c.Sink.Close())
	}
	regfile.CloseLinks(d.tree)
	for _, p := range d.tree.Processes {
		if p.PIDFD >= 0 {
			_ = unix.Close(p.PIDFD)
		}
	}
}

// microseconds since an instant, as statistics have them.
func microseconds(since time.Time) uint32 { return microsecondsOf(time.Since(since)) }

func microsecondsOf(d time.Duration) uint32 { return uint32(min(d.Microseconds(), math.MaxUint32)) }
