package plan

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// sharing is as much of a kernel as descriptor tables and working directories need that threads of several processes share.
type sharing struct {
	next    int
	threads map[int]*sharingThread
}

type sharingThread struct {
	pid, parent int
	has         pair
}

func (k *sharing) fresh() snapshot.ObjectID { k.next++; return snapshot.ObjectID(k.next) }

// clone lets a thread make one of its own process, where pid is 0, or another process.
func (k *sharing) clone(by, tid int, process bool, share Share) error {
	from := k.threads[by]
	if from == nil || k.threads[tid] != nil {
		return fmt.Errorf("thread %d cannot make %d", by, tid)
	}
	th := *from
	if process {
		th.pid, th.parent = tid, from.pid
	}
	k.threads[tid] = &th
	k.unshare(tid, ^share)
	return nil
}

func (k *sharing) unshare(tid int, what Share) {
	if what&ShareFiles != 0 {
		k.threads[tid].has.table = k.fresh()
	}
	if what&ShareFS != 0 {
		k.threads[tid].has.fs = k.fresh()
	}
}

// live lets threads do what they like.
func (k *sharing) live(r *rand.Rand, steps int) {
	for range steps {
		tids := slices.Sorted(maps.Keys(k.threads))
		tid := tids[r.IntN(len(tids))]
		share := Share(r.IntN(4)) << 1
		switch r.IntN(8) {
		case 0, 1:
			k.clone(tid, k.fresher(), false, ShareFiles|ShareFS)
		case 2, 3:
			if r.IntN(3) > 0 {
				share = 0 // as fork does
			}
			child := k.fresher()
			k.clone(tid, child, true, share)
			if by := k.threads[tid]; by.parent != 0 && r.IntN(4) == 0 { // CLONE_PARENT
				k.threads[child].parent = by.parent
			}
		case 4, 5:
			k.unshare(tid, share)
		default:
			if k.threads[tid].pid != tid {
				delete(k.threads, tid)
			}
		}
	}
}

func (k *sharing) fresher() int { k.next++; return k.next }

// tree is the snapshot of it.
func (k *sharing) tree() *snapshot.Tree {
	tree := new(snapshot.Tree)
	tids := slices.Sorted(maps.Keys(k.threads)) // parents before children
	for _, tid := range tids {
		first := k.threads[tid]
		if first.pid != tid {
			continue
		}
		own := []pair{first.has}
		task := &snapshot.Task{PID: snapshot.PID{tid}, Parent: first.parent, Session: tids[0], Group: tids[0], State: snapshot.Running}
		task.Space, task.Handlers, task.Table, task.FS = snapshot.ObjectID(tid), snapshot.ObjectID(tid), own[0].table, own[0].fs
		for _, other := range tids {
			if th := k.threads[other]; th.pid == tid {
				thread := &snapshot.Thread{TID: snapshot.PID{other}}
				if th.has.table != task.Table {
					thread.Table = th.has.table
				}
				if th.has.fs != task.FS {
					thread.FS = th.has.fs
				}
				task.Threads = append(task.Threads, thread)
			}
		}
		tree.Tasks = append(tree.Tasks, task)
	}
	return tree
}

// planOf plans the processes and threads of a tree.
func planOf(tree *snapshot.Tree) (*Plan, error) {
	report := new(images.Report)
	p := &Plan{Tree: tree, Steps: shape(tree, false, report)}
	p.births(report)
	return p, report.Err()
}

// again lets a kernel do what a plan says.
func again(p *Plan) (*sharing, error) {
	root := p.Tree.Root().PID.Num()
	k := &sharing{next: 1 << 20, threads: map[int]*sharingThread{root: {pid: root, has: pair{1, 1}}}}
	do := func(s Step) error {
		switch s.Op {
		case Fork:
			by := s.By
			if s.ByThread != 0 {
				by = s.ByThread
			}
			if s.By == 0 {
				return nil
			}
			if err := k.clone(by, s.PID, true, s.Share); err != nil {
				return err
			}
			if k.threads[by].pid != s.By {
				return fmt.Errorf("%v: thread %d is not its own", s, by)
			}
			if s.Sibling {
				k.threads[s.PID].parent = k.threads[by].parent
			}
		case AddThread:
			if err := k.clone(s.ByThread, s.Thread, false, s.Share); err != nil {
				return err
			}
			if k.threads[s.Thread].pid != s.PID {
				return fmt.Errorf("%v: it is another process's", s)
			}
		case Unshare:
			k.unshare(s.PID, s.Share)
		}
		return nil
	}
	for _, s := range p.Steps {
		if err := do(s); err != nil {
			return nil, err
		}
	}
	for _, task := range p.Tree.Tasks {
		steps, pid := p.Births[task.PID.Num()], task.PID.Num()
		if len(steps) == 0 { // all alike, or made already
			for _, th := range task.Threads[1:] {
				if tid := th.TID.Num(); k.threads[tid] == nil {
					steps = append(steps, Step{Op: AddThread, PID: pid, Thread: tid, ByThread: pid, Share: ShareFiles | ShareFS})
				}
			}
		}
		for _, s := range steps {
			if err := do(s); err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

// compare holds what was made against what was.
func (k *sharing) compare(made *sharing) error {
	if len(made.threads) != len(k.threads) {
		return fmt.Errorf("%d threads are made, there were %d", len(made.threads), len(k.threads))
	}
	tables, contexts := make(map[snapshot.ObjectID]snapshot.ObjectID), make(map[snapshot.ObjectID]snapshot.ObjectID)
	back := [2]map[snapshot.ObjectID]snapshot.ObjectID{{}, {}}
	same := func(there, back map[snapshot.ObjectID]snapshot.ObjectID, a, b snapshot.ObjectID) bool {
		if there[a] == 0 && back[b] == 0 {
			there[a], back[b] = b, a
		}
		return there[a] == b && back[b] == a
	}
	for tid, was := range k.threads {
		is := made.threads[tid]
		if is == nil || is.pid != was.pid || is.parent != was.parent {
			return fmt.Errorf("thread %d: %v, it was %v", tid, is, was)
		}
		if !same(tables, back[0], was.has.table, is.has.table) || !same(contexts, back[1], was.has.fs, is.has.fs) {
			return fmt.Errorf("thread %d shares other things than it did", tid)
		}
	}
	return nil
}

// TestShares lets threads of several processes clone, fork, unshare and exit at random, and makes those that are left again: who has
// what in common must be as it was, or the plan has said that it cannot be.
func TestShares(t *testing.T) {
	early, refused, whole := 0, 0, 0
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(11, seed))
		k := &sharing{next: 100, threads: map[int]*sharingThread{50: {pid: 50, has: pair{1, 1}}}}
		k.live(r, r.IntN(40))
		tree := k.tree()
		plan, err := planOf(tree)
		if err != nil {
			if errors.Is(err, images.ErrInvalid) || !strings.Contains(err.Error(), "which cannot fork it") && !strings.Contains(err.Error(), "as no thread can") {
				t.Fatalf("seed %d: %v", seed, err)
			}
			refused++
			continue
		}
		made, err := again(plan)
		if err == nil {
			err = k.compare(made)
		}
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, plan)
		}
		whole++
		for _, s := range plan.Steps {
			if s.Op == AddThread {
				early++
				break
			}
		}
	}
	t.Logf("%d trees are made, %d of them with threads that share with other processes; %d are refused", whole, early, refused)
	if early < 300 || refused > early/5 {
		t.Errorf("%d trees are made, %d of them with threads that share with other processes; %d are refused", whole, early, refused)
	}
}

// A first thread gives up what it was born with, one after the other, and has threads that have what it had in between.
func TestSharesGivenUp(t *testing.T) {
	for _, order := range [][2]Share{{ShareFiles, ShareFS}, {ShareFS, ShareFiles}} {
		k := &sharing{next: 100, threads: map[int]*sharingThread{50: {pid: 50, has: pair{1, 1}}}}
		if err := k.clone(50, 60, true, ShareFiles|ShareFS); err != nil {
			t.Fatal(err)
		}
		for i, what := range order {
			if err := k.clone(60, 61+i, false, ShareFiles|ShareFS); err != nil {
				t.Fatal(err)
			}
			k.unshare(60, what)
		}
		plan, err := planOf(k.tree())
		if err != nil {
			t.Fatal(err)
		}
		made, err := again(plan)
		if err == nil {
			err = k.compare(made)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, plan)
		}
	}
}

// What a process cannot get from the one that forks it is refused by name, whoever has it.
func TestSharesRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		sister pair   // what 20 has
		niece  pair   // what 25 has, a child of 20
		parent []pair // what the threads of 10 have
		child  []pair // what those of 30 have
		want   string
	}{
		{"a table of a thread", pair{5, 5}, pair{6, 6}, []pair{{4, 4}, {5, 1}}, nil, ""},
		{"a directory of a sister", pair{2, 2}, pair{6, 6}, []pair{{1, 1}, {3, 1}}, []pair{{9, 2}}, ""},
		{"a directory of a niece", pair{2, 2}, pair{6, 6}, []pair{{1, 1}, {3, 1}}, []pair{{9, 6}}, "process 25 shares its working directory with process 30"},
		{"a table of a sister and a directory of the parent", pair{2, 2}, pair{6, 6}, []pair{{1, 1}}, []pair{{2, 1}}, "process 30 shares its"},
		{"two tables", pair{2, 2}, pair{6, 6}, []pair{{1, 1}, {3, 1}}, []pair{{3, 3}, {1, 3}}, "process 30 shares its descriptors with process 10"},
		{"a table of one and a directory of another", pair{2, 2}, pair{6, 6}, []pair{{1, 1}, {3, 3}}, []pair{{1, 3}}, "process 30 shares its"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := taskOf(10, c.parent)
			sister := taskOf(20, []pair{c.sister})
			niece := taskOf(25, []pair{c.niece})
			tasks := []*snapshot.Task{root, sister, niece}
			if c.child != nil {
				tasks = append(tasks, taskOf(30, c.child))
			}
			for _, task := range tasks {
				task.Session, task.Group, task.Space, task.Handlers = 10, 10, snapshot.ObjectID(task.PID.Num()), snapshot.ObjectID(task.PID.Num())
				if task != root {
					task.Parent = 10
				}
			}
			niece.Parent = 20
			_, err := planOf(&snapshot.Tree{Tasks: tasks})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "which cannot fork it")) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
