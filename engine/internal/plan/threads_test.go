package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// TestBirths lets threads of a process clone, unshare and exit at random, and makes those that are left again by the births that
// are planned: who has what in common must be as it was.
func TestBirths(t *testing.T) {
	apart := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(7, seed))
		next := snapshot.ObjectID(100)
		fresh := func() snapshot.ObjectID { next++; return next }
		threads := []pair{{fresh(), fresh()}}
		for range r.IntN(30) {
			i := r.IntN(len(threads))
			switch r.IntN(4) {
			case 0, 1:
				threads = append(threads, threads[i])
			case 2:
				if r.IntN(2) == 0 {
					threads[i].table = fresh()
				} else {
					threads[i].fs = fresh()
				}
			case 3:
				if i > 0 {
					threads = slices.Delete(threads, i, i+1)
				}
			}
		}
		task := taskOf(10, threads)
		births, problems := birthsOf(task, pair{})
		if len(problems) > 0 {
			t.Fatalf("seed %d: %v", seed, problems)
		}
		made, err := give(task, births)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, a := range task.Threads {
			if a.Table != 0 || a.FS != 0 {
				apart++
			}
			for j, b := range task.Threads {
				x, y := made[a.TID.Num()], made[b.TID.Num()]
				if (x.table == y.table) != (threads[i].table == threads[j].table) || (x.fs == y.fs) != (threads[i].fs == threads[j].fs) {
					t.Fatalf("seed %d: threads %v and %v share other things than they did\n%v", seed, a.TID, b.TID, births)
				}
			}
		}
	}
	if apart < 1000 {
		t.Errorf("only %d threads had something of their own", apart)
	}
}

// taskOf is a process whose threads have the things given, the first those of the process.
func taskOf(pid int, threads []pair) *snapshot.Task {
	task := &snapshot.Task{PID: snapshot.PID{pid}, State: snapshot.Running, Table: threads[0].table, FS: threads[0].fs}
	for i, has := range threads {
		th := &snapshot.Thread{TID: snapshot.PID{pid + i}}
		if has.table != task.Table {
			th.Table = has.table
		}
		if has.fs != task.FS {
			th.FS = has.fs
		}
		task.Threads = append(task.Threads, th)
	}
	return task
}

// give makes threads as clone would.
func give(task *snapshot.Task, births []Step) (map[int]pair, error) {
	made := map[int]pair{task.PID.Num(): {1, 1}}
	next := snapshot.ObjectID(1)
	for _, b := range births {
		has, ok := made[b.ByThread]
		if !ok {
			return nil, fmt.Errorf("%v, who is not there", b)
		}
		if _, twice := made[b.Thread]; twice {
			return nil, fmt.Errorf("%v, who is there already", b)
		}
		next++
		if b.Share&ShareFiles == 0 {
			has.table = next
		}
		if b.Share&ShareFS == 0 {
			has.fs = next
		}
		made[b.Thread] = has
	}
	if len(made) != len(task.Threads) {
		return nil, fmt.Errorf("%d threads are made, there were %d", len(made), len(task.Threads))
	}
	return made, nil
}

// What threads cannot have come to have is refused.
func TestBirthsRefused(t *testing.T) {
	report := new(images.Report)
	task := taskOf(10, []pair{{1, 1}, {2, 2}, {2, 3}, {3, 3}, {3, 2}})
	(&Plan{Tree: &snapshot.Tree{Tasks: []*snapshot.Task{task}}}).births(report)
	if err := report.Err(); err == nil || !strings.Contains(err.Error(), "as no thread can") {
		t.Errorf("%v", err)
	}
}
