//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/pages"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/creds"
	"stasis.example/engine/internal/state/mm"
	"stasis.example/engine/internal/state/regfile"
	"stasis.example/engine/internal/state/timerfd"
	"stasis.example/engine/internal/stub"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// A restore is one restore of a tree.
type restore struct {
	dir     image.Dir
	work    image.Dir // for the statistics
	log     *logger
	kernel  *linux.Kernel
	options plan.Options
	inherit map[string]*os.File               // files that are handed in, by their keys
	stopped bool                              // leave all processes stopped
	sibling bool                              // the root becomes a sibling of this process
	files   apply.Files                       // how files are found and compared
	allowed func(*snapshot.Tree) error        // whether whoever asks may have such a tree; nil for yes
	notify  func(stage string, pid int) error // nil for nobody to be told
	stage   func(name string)                 // for who only wants to know

	began  time.Time
	ghosts regfile.Ghosts // files whose names are gone

	plan *plan.Plan
	// Of those who fill the processes, one after the other.
	buffer   pages.Buffer
	compared plan.WalkRoom

	tree  *apply.Tree
	made  map[int]*stub.Process // processes that are there, by the numbers of the plan
	tasks map[int]*apply.Task
	pages uint64 // that were written
	stats entry.RestoreStats

	otherVDSO bool                             // take every vDSO for another kernel's
	patches   map[snapshot.ObjectID][]mm.Patch // of spaces that have another kernel's vDSO
}

// run restores the tree, and reads as the order of events. Everything that the images alone decide is decided before there is
// a process, and so is whether the files are there. Until the last step whatever was made is killed when a step fails, when the
// context ends, or when this process dies.
func (r *restore) run(ctx context.Context) (root int, err error) {
	r.began = time.Now()
	if r.plan, err = plan.Make(ctx, r.dir, r.options); err != nil {
		return 0, err
	}
	for _, note := range r.plan.Notes {
		r.log.add(logWarn, "restore", "%s", note)
	}
	if r.allowed != nil {
		if err := r.allowed(r.plan.Tree); err != nil {
			return 0, err
		}
	}
	if err := r.adaptVDSO(); err != nil {
		return 0, err
	}
	root = r.plan.Tree.Root().PID.Num()
	if err := r.tell("pre-restore", 0); err != nil {
		return 0, err
	}
	defer r.files.Close()
	defer r.ghosts.CloseLinks()
	if err := r.open(); err != nil {
		return 0, err
	}
	r.log.info("%d files are open", len(r.files.All()))
	if err := ptrace.Run(ctx, ptrace.Options{Kernel: r.kernel, ExitKill: true}, r.traced); err != nil {
		return 0, err
	}
	if err := r.ghosts.Unlink(); err != nil {
		r.log.add(logWarn, "restore", "%v", err)
	}
	_ = r.tell("post-resume", 0) // too late to change anything
	return root, nil
}

// traced is the part that holds processes.
func (r *restore) traced(tr *ptrace.Tracer) error {
	began := time.Now()
	r.prepare()
	if err := r.start(tr); err != nil {
		return errors.Join(err, r.destroy(tr))
	}
	if err := r.shape(tr); err != nil {
		return errors.Join(err, r.destroy(tr))
	}
	r.stats.ForkingTime = microseconds(began)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"processes", r.finishTasks},
		{"stages", r.lastStages},
		{"registers", r.finish},
		{"statistics", r.account},
		{"timers of files", r.startTimers},
		{"last preparations", r.keep},
	} {
		if err := step.do(); err != nil {
			return errors.Join(err, r.destroy(tr))
		}
		r.log.info("%s are done", step.name)
	}
	if err := r.letGo(); err != nil {
		return errors.Join(err, r.destroy(tr))
	}
	return nil
}

// prepare makes the tree that the kinds of state work with.
func (r *restore) prepare() {
	t := r.plan.Tree
	r.tree = &apply.Tree{
		Kernel: r.kernel, Proc: proc.New(linux.Proc{}), Snapshot: t, Files: &r.files, Watches: watches(r.plan),
		Note: func(format string, args ...any) { r.log.add(logWarn, "restore", format, args...) },
	}
	r.made, r.tasks = make(map[int]*stub.Process), make(map[int]*apply.Task)
	spaces, tables := byID(t.Spaces, func(s *snapshot.Space) snapshot.ObjectID { return s.ID }), byID(t.Tables, func(s *snapshot.Table) snapshot.ObjectID { return s.ID })
	contexts, handlers := byID(t.FSContexts, func(s *snapshot.FSContext) snapshot.ObjectID { return s.ID }), byID(t.Handlers, func(s *snapshot.Handlers) snapshot.ObjectID { return s.ID })
	for _, task := range t.Tasks {
		if task.State == snapshot.Dead {
			continue
		}
		pid := task.PID.Num()
		a := &apply.Task{
			Task: task, Tree: r.tree, Dir: r.tree.Proc.Process(pid), Batch: apply.Batch{Room: &r.tree.Room},
			Space: take(spaces, task.Space), Table: take(tables, task.Table), FS: take(contexts, task.FS), Handlers: take(handlers, task.Handlers),
		}
		r.tree.Tasks = append(r.tree.Tasks, a)
		r.tasks[pid] = a
	}
	// What a process has too is applied to that one: it begins with what all begin with, and a thread perhaps with a copy.
	for _, a := range r.tree.Tasks {
		for _, th := range a.Task.Threads {
			a.Threads = append(a.Threads, &apply.Thread{
				Thread: th, Task: a, OwnTable: take(tables, th.Table), OwnFS: take(contexts, th.FS), Batch: apply.Batch{Room: &r.tree.Room},
			})
		}
	}
}

func byID[T any](all []*T, id func(*T) snapshot.ObjectID) map[snapshot.ObjectID]*T {
	m := make(map[snapshot.ObjectID]*T, len(all))
	for _, x := range all {
		m[id(x)] = x
	}
	return m
}

// take returns a thing to the first who asks for it.
func take[T any](m map[snapshot.ObjectID]*T, id snapshot.ObjectID) *T {
	x := m[id]
	delete(m, id)
	return x
}

// start makes the root: the program that all comes from, and its copy under the root's number.
func (r *restore) start(tr *ptrace.Tracer) error {
	area, err := r.plan.Hole(stub.AreaSize)
	if err != nil {
		return err
	}
	area.End = area.Start + stub.AreaSize
	if err := passOn(); err != nil {
		return err
	}
	if err := r.setClocks(); err != nil {
		return err
	}
	r.files.Place(r.plan.Tree)
	first, _ := r.files.Range()
	layout, number := &stub.Layout{Area: area, Files: r.files.All(), FirstFile: first}, r.plan.Tree.Root().PID.Num()
	if r.sibling {
		root, err := stub.StartSibling(tr, layout, number)
		if err == nil {
			r.made[number] = root
		}
		return err
	}
	original, err := stub.Start(tr, layout)
	if err != nil {
		return err
	}
	made, err := original.Fork([]stub.Child{{PID: number, Flags: unix.CLONE_PARENT | stub.ClearHandlers}})
	for _, p := range made {
		r.made[p.PID] = p
	}
	return errors.Join(err, original.Destroy())
}

// finishTasks makes processes what they were, but for the registers.
func (r *restore) finishTasks() error {
	for _, t := range r.tree.Tasks {
		t.Remote = r.made[t.PID.Num()]
		t.Meet()
	}
	alone, apart, together := alone(), apart(), together()
	for _, t := range r.tree.Tasks {
		if err := mm.Seal(t); err != nil {
			return err
		}
		if err := applyAll(alone, t); err != nil {
			return err
		}
	}
	for _, t := range r.tree.Tasks {
		if err := r.addThreads(t); err != nil {
			return fmt.Errorf("%s: threads: %w", t.Where(), err)
		}
		if err := applyAll(apart, t); err != nil {
			return err
		}
	}
	for _, t := range r.tree.Tasks {
		if err := applyAll(together, t); err != nil {
			return err
		}
		if err := endLeader(t); err != nil {
			return err
		}
	}
	return nil
}

// addThreads makes the threads of a process, but for one that has got them already, to fork others that share with them.
func (r *restore) addThreads(t *apply.Task) error {
	births := r.plan.Births[t.PID.Num()]
	if births == nil && len(t.Remote.Threads) == 1 {
		var tids []int
		for _, th := range t.Threads[1:] {
			tids = append(tids, th.TID.Num())
		}
		if err := t.Remote.AddThreads(tids); err != nil {
			return err
		}
	}
	for _, s := range births {
		if err := addThread(t.Remote, s); err != nil {
			return err
		}
	}
	t.Meet()
	return nil
}

// endLeader lets a first thread exit that had. It comes before the children of the process ask for a signal when their parent ends.
// The kernel takes its credentials for those of the process when somebody sends that a signal; nothing else is left of it.
func endLeader(t *apply.Task) error {
	if !t.Threads[0].Exited {
		return nil
	}
	leader := &apply.Thread{Thread: &snapshot.Thread{TID: t.PID, Creds: t.Threads[1].Creds}, Task: t, Remote: t.Remote.Threads[0]}
	if err := creds.Apply(leader); err != nil {
		return err
	}
	if err := leader.Batch.Run(t.Remote, leader.Remote); err != nil {
		return fmt.Errorf("%s: its first thread: %w", t.Where(), err)
	}
	return t.Remote.EndLeader(t.Comm)
}

// lastStages tells of the stages in which the tree is there and does not run yet.
func (r *restore) lastStages() error {
	root := r.plan.Tree.Root().PID.Num()
	// CRIU tells the pid here, and nowhere else; of namespaces and of the network it tells only where a tree has its own.
	if err := r.tell("post-restore", root); err != nil {
		return err
	}
	return r.tell("pre-resume", 0)
}

// tell notifies of a stage; whoever is told can refuse to go on.
func (r *restore) tell(stage string, pid int) error {
	r.stage(stage)
	if r.notify == nil {
		return nil
	}
	if err := r.notify(stage, pid); err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	return nil
}

// finish takes what is ours out of the processes and gives them their registers. An address space that several have is
// cleared by the last of them.
func (r *restore) finish() error {
	for i := len(r.tree.Tasks) - 1; i >= 0; i-- {
		if err := r.finishTask(r.tree.Tasks[i]); err != nil {
			return err
		}
	}
	return nil
}

// account writes the statistics.
func (r *restore) account() error {
	r.stats.RestoreTime, r.stats.PagesRestored = microseconds(r.began), &r.pages
	return writeStats(r.work, image.StatsRestore, &entry.Stats{Restore: &r.stats})
}

// startTimers starts those timers that are files, and gives up our ends of files: whoever is let go must not find anybody else at
// the other end of a pipe.
func (r *restore) startTimers() error {
	err := timerfd.Arm(r.tree)
	r.files.Close()
	return err
}

// keep prepares the processes for living on without us. They do not run yet, and if we die they die, all of them.
func (r *restore) keep() error {
	for _, t := range r.tree.Tasks {
		if r.stopped || t.State == snapshot.Stopped {
			if err := unix.Kill(t.PID.Num(), unix.SIGSTOP); err != nil {
				return fmt.Errorf("%s: %w", t.Where(), err)
			}
		}
	}
	r.tie()
	for _, t := range r.tree.Tasks {
		if err := t.Remote.NearlyKeep(); err != nil {
			return fmt.Errorf("%s: %w", t.Where(), err)
		}
	}
	// One call for each process. Without a tie, if we are killed between the first of them and the last, a part of the tree is left.
	for _, t := range r.tree.Tasks {
		if err := t.Remote.Keep(); err != nil {
			return fmt.Errorf("%s: %w", t.Where(), err)
		}
	}
	return nil
}

// tie has all processes die with us until letGo says otherwise. Of one process alone a single call of keep decides.
func (r *restore) tie() {
	if len(r.tree.Tasks) < 2 {
		return
	}
	var pids []int
	for _, t := range r.tree.Tasks {
		pids = append(pids, t.PID.Num())
	}
	if err := r.tracer().Tie(pids); err != nil {
		r.log.add(logWarn, "restore", "if this program were killed in the very next moment, a part of the tree would be left: %v", err)
	}
}

func (r *restore) tracer() *ptrace.Tracer { return r.tree.Tasks[0].Remote.Tracer() }

// letGo begins with the point of no return: from the first call on the processes live on without us. Where one cannot be let go, all of
// them are killed: there is the whole tree or nothing.
func (r *restore) letGo() error {
	if err := r.tracer().Untie(); err != nil {
		return err
	}
	var errs []error
	for _, t := range r.tree.Tasks {
		errs = append(errs, t.Remote.LetGo())
	}
	for _, t := range r.tree.Tasks {
		if r.stopped || t.State == snapshot.Stopped {
			errs = append(errs, awaitStop(r.kernel, t.PID.Num(), t.Dir))
		}
	}
	return errors.Join(errs...)
}

// destroy kills what was made, in any order, whatever the context says: all of it is stopped, so nobody makes anything more.
func (r *restore) destroy(tr *ptrace.Tracer) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tr.Context()), time.Minute)
	defer cancel()
	return tr.WithContext(ctx, func() error {
		var errs []error
		for _, p := range r.made {
			errs = append(errs, p.Destroy())
		}
		return errors.Join(errs...)
	})
}
