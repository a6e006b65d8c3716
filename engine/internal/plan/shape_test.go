package plan

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"

	"github.com/google/go-cmp/cmp"
)

// kernel is as much of a kernel as sessions, groups and parents need, by setsid(2), setpgid(2), clone(2), _exit(2) and wait(2). It
// makes trees at random, the way programs make them, and then carries out the plans for them.
type kernel struct {
	procs map[int]*proc
	next  int
}

type proc struct {
	pid, parent, session, group int
	dead, subreaper             bool
	order                       int
}

// The process that everything descends from is 1: init in one use, the engine in the other.
func newKernel() *kernel {
	return &kernel{procs: map[int]*proc{1: {pid: 1, session: outside, group: outside, subreaper: true}}, next: 100}
}

func (k *kernel) alive(pid int) (*proc, error) {
	p := k.procs[pid]
	if p == nil || p.dead {
		return nil, fmt.Errorf("no process %d", pid)
	}
	return p, nil
}

func (k *kernel) fork(by, pid int, sibling bool) error {
	p, err := k.alive(by)
	if err != nil {
		return err
	}
	if k.procs[pid] != nil {
		return fmt.Errorf("pid %d is taken", pid)
	}
	parent := by
	if sibling {
		parent = p.parent
	}
	k.procs[pid] = &proc{pid: pid, parent: parent, session: p.session, group: p.group, order: len(k.procs)}
	return nil
}

func (k *kernel) setsid(pid int) error {
	p, err := k.alive(pid)
	if err != nil {
		return err
	}
	for _, q := range k.procs {
		if q.group == pid {
			return fmt.Errorf("setsid: %d is the number of a group", pid)
		}
	}
	p.session, p.group = pid, pid
	return nil
}

func (k *kernel) setpgid(pid, group int) error {
	p, err := k.alive(pid)
	if err != nil {
		return err
	}
	if p.session == pid {
		return fmt.Errorf("setpgid: %d leads a session", pid)
	}
	if group == pid || group == outside && p.session == outside {
		p.group = group
		return nil
	}
	for _, q := range k.procs {
		if q.group == group && q.session == p.session {
			p.group = group
			return nil
		}
	}
	return fmt.Errorf("setpgid: there is no group %d in session %d", group, p.session)
}

func (k *kernel) exit(pid int) error {
	p, err := k.alive(pid)
	if err != nil {
		return err
	}
	p.dead = true
	heir := k.procs[p.parent]
	for heir.dead || !heir.subreaper {
		heir = k.procs[heir.parent]
	}
	for _, q := range k.procs {
		if q.parent == pid {
			q.parent = heir.pid
			if q.dead && heir.pid == 1 {
				delete(k.procs, q.pid)
			}
		}
	}
	if p.parent == 1 {
		delete(k.procs, pid)
	}
	return nil
}

func (k *kernel) wait(parent, pid int) error {
	p := k.procs[pid]
	if p == nil || !p.dead || p.parent != parent {
		return fmt.Errorf("%d is no dead child of %d", pid, parent)
	}
	delete(k.procs, pid)
	return nil
}

// random lets processes do what they like.
func random(r *rand.Rand, k *kernel, root, steps int) {
	for range steps {
		pids := make([]int, 0, len(k.procs))
		for pid, p := range k.procs {
			if pid != 1 && !p.dead {
				pids = append(pids, pid)
			}
		}
		slices.Sort(pids)
		pid := pids[r.IntN(len(pids))]
		p := k.procs[pid]
		switch r.IntN(12) {
		case 0, 1, 2, 3, 4:
			if len(pids) < 25 {
				k.fork(pid, k.next, false)
				k.next++
			}
		case 5, 6:
			k.setsid(pid)
		case 7:
			k.setpgid(pid, pid)
		case 8:
			k.setpgid(pid, k.procs[pids[r.IntN(len(pids))]].group)
		case 9, 10:
			if pid == root {
				continue
			}
			parent := p.parent
			k.exit(pid)
			if r.IntN(4) > 0 {
				k.wait(parent, pid)
			}
		case 11:
			p.subreaper = !p.subreaper
		}
	}
}

// shot is what is in the tree under a root, as one line for each process.
func shot(k *kernel, root int, own map[int]bool) []string {
	var lines []string
	for pid, p := range k.procs {
		if pid != 1 && under(k, pid, root) {
			state := ""
			if p.dead {
				state = " dead"
			}
			parent := p.parent
			if pid == root {
				parent = 0
			}
			group, session := p.group, p.session
			if own != nil && !own[session] {
				if !own[group] {
					group = outside
				}
				session = outside
			}
			lines = append(lines, fmt.Sprintf("%d: parent %d, session %d, group %d%s", pid, parent, session, group, state))
		}
	}
	slices.Sort(lines)
	return lines
}

func under(k *kernel, pid, root int) bool {
	for pid != 1 {
		if pid == root {
			return true
		}
		pid = k.procs[pid].parent
	}
	return false
}

// treeOf makes the snapshot of what is under a root.
func treeOf(k *kernel, root int) *snapshot.Tree {
	t := &snapshot.Tree{}
	var procs []*proc
	for pid, p := range k.procs {
		if pid != 1 && under(k, pid, root) {
			procs = append(procs, p)
		}
	}
	slices.SortFunc(procs, func(a, b *proc) int { return a.pid - b.pid })
	have := map[int]bool{0: true}
	for len(procs) > 0 {
		procs = slices.DeleteFunc(procs, func(p *proc) bool {
			parent := p.parent
			if p.pid == root {
				parent = 0
			}
			if !have[parent] {
				return false
			}
			have[p.pid] = true
			task := &snapshot.Task{PID: snapshot.PID{p.pid}, Parent: parent, Session: p.session, Group: p.group, State: snapshot.Running}
			id := snapshot.ObjectID(p.pid)
			task.Space, task.Table, task.FS, task.Handlers = id, id, id, id
			if p.dead {
				task.State = snapshot.Dead
			} else {
				task.Threads = []*snapshot.Thread{{TID: task.PID}}
			}
			t.Tasks = append(t.Tasks, task)
			return true
		})
	}
	return t
}

// carryOut lets a kernel do what a plan says.
func carryOut(k *kernel, steps []Step) error {
	real := func(pid int) int {
		switch {
		case pid == 0:
			return 1
		case anyPID(pid):
			return 1000000 - pid
		}
		return pid
	}
	for i, s := range steps {
		pid, by := real(s.PID), real(s.By)
		var err error
		switch s.Op {
		case Fork:
			err = k.fork(by, pid, s.Sibling)
		case SetSession:
			err = k.setsid(pid)
		case SetGroup:
			err = k.setpgid(pid, s.Group)
		case Adopt, Unadopt:
			k.procs[pid].subreaper = s.Op == Adopt
		case Dismiss:
			if err = k.exit(pid); err == nil {
				err = k.wait(by, pid)
			}
		case Die:
			err = k.exit(pid)
		default:
			err = fmt.Errorf("unknown operation")
		}
		if err != nil {
			return fmt.Errorf("step %d, %v: %w", i, s, err)
		}
	}
	return nil
}

func lines(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

// TestShapes makes trees at random, plans each, carries out the plan, and compares.
func TestShapes(t *testing.T) {
	n := 5000
	if testing.Short() {
		n = 1000
	}
	kinds := make(map[string]int)
	for seed := range n {
		checkShape(t, uint64(seed), kinds)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	for _, kind := range []string{"sibling", "orphan", "leader gone", "group gone", "left early", "job", "dead"} {
		if kinds[kind] < n/200 {
			t.Errorf("only %d of %d trees have a %s: the test tests nothing", kinds[kind], n, kind)
		}
	}
	// A leader that is reparented twice, by subreapers inside each other, with members of its session left at each.
	if kinds["refused"] > n/1000 {
		t.Errorf("%d of %d trees were refused", kinds["refused"], n)
	}
	t.Log(kinds)
}

func checkShape(t *testing.T, seed uint64, kinds map[string]int) {
	r := rand.New(rand.NewPCG(seed, 1))
	k := newKernel()
	const root = 50
	k.fork(1, root, false)
	job := r.IntN(4) == 0
	if job {
		// The session of a shell that is not in the tree.
		k.fork(1, 40, false)
		k.setsid(40)
		k.procs[root].session, k.procs[root].group = 40, 40
		if r.IntN(2) == 0 {
			k.setpgid(root, root)
		}
	} else {
		k.setsid(root)
	}
	if r.IntN(4) > 0 {
		k.procs[root].subreaper = true
	}
	random(r, k, root, 10+r.IntN(60))
	tree := treeOf(k, root)
	if job && k.procs[root].session == root {
		job = false
	}
	report := new(images.Report)
	steps := shape(tree, job, report)
	if err := report.Err(); err != nil {
		if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, images.ErrInvalid) {
			t.Errorf("no plan for\n%s\n%v", strings.Join(shot(k, root, nil), "\n"), err)
		}
		kinds["refused"]++
		return
	}
	count(tree, steps, job, kinds)
	made := newKernel()
	if err := carryOut(made, steps); err != nil {
		t.Errorf("%v\nfor\n%s\n%s", err, strings.Join(shot(k, root, nil), "\n"), lines(steps))
		return
	}
	own := map[int]bool{}
	if job {
		// What the tree had from the shell it now has from the engine.
		for _, task := range tree.Tasks {
			own[task.Session], own[task.Group] = true, true
		}
		delete(own, tree.Root().Session)
		if tree.Root().Group != root {
			delete(own, tree.Root().Group)
		}
	} else {
		own = nil
	}
	if diff := cmp.Diff(shot(k, root, own), shot(made, root, nil)); diff != "" {
		t.Errorf("-was +made:\n%s\n%s", diff, lines(steps))
	}
	for pid := range made.procs {
		if pid != 1 && !under(made, pid, root) || pid >= 1000000 {
			t.Errorf("process %d is left over\n%s", pid, lines(steps))
		}
	}
}

// count notes which of the hard cases a tree had.
func count(tree *snapshot.Tree, steps []Step, job bool, kinds map[string]int) {
	seen := make(map[string]bool)
	sessions := make(map[int]bool)
	for _, s := range steps {
		switch {
		case s.Op == Fork && s.Sibling:
			seen["sibling"] = true
		case s.Op == Adopt:
			seen["orphan"] = true
		case s.Op == SetSession && sessions[-s.PID]:
			seen["leader gone"] = true
		case s.Op == SetGroup && sessions[-s.PID]:
			seen["group gone"] = true
		case s.Op == Die:
			seen["dead"] = true
		case s.Op == SetSession && sessions[s.PID] && s.PID != 50:
			seen["left early"] = true
		}
		if s.Op == Fork && s.Helper {
			sessions[-s.PID] = true
		}
		if s.Op == Fork {
			sessions[s.By] = true
		}
	}
	seen["job"] = job
	for kind, is := range seen {
		if is {
			kinds[kind]++
		}
	}
}

// TestSwappedGroups: two leaders, each in the group of the other, as they can be when a third had stayed in one while they
// changed. Hardly any tree at random has it.
func TestSwappedGroups(t *testing.T) {
	k := newKernel()
	for _, err := range []error{
		k.fork(1, 50, false), k.setsid(50), k.fork(50, 100, false), k.setpgid(100, 100), k.fork(50, 101, false), k.setpgid(101, 101),
		k.fork(100, 102, false), k.setpgid(100, 101), k.setpgid(101, 100), k.exit(102), k.wait(100, 102),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := new(images.Report)
	steps := shape(treeOf(k, 50), false, r)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	made := newKernel()
	if err := carryOut(made, steps); err != nil {
		t.Fatalf("%v\n%s", err, lines(steps))
	}
	if diff := cmp.Diff(shot(k, 50, nil), shot(made, 50, nil)); diff != "" {
		t.Errorf("-was +made:\n%s\n%s", diff, lines(steps))
	}
}
