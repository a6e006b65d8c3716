//go:build amd64

package timers

import (
	"errors"
	"os"
	"slices"
	"testing"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// Timers get their numbers where a kernel lets them be chosen, and where it counts.
func TestNumbers(t *testing.T) {
	testkit.Need(t, testkit.Root)
	timers := []snapshot.Timer{
		{ID: 40, Clock: 1, Notify: sigevSignal, Signal: 40, Value: 0x1234567812345678, Interval: snapshot.Timespec{Sec: 3}, Remaining: snapshot.Timespec{Sec: 1000, Nsec: 5}},
		{ID: 3, Clock: 0, Notify: sigevNone, Interval: snapshot.Timespec{Sec: 7}},
		{ID: 0, Clock: 7, Notify: sigevSignal, Signal: 14},
	}
	for name, make := range map[string]func(*apply.Task) error{
		"chosen": func(task *apply.Task) error { return Apply(task) },
		"counted": func(task *apply.Task) error {
			return count(task, slices.SortedFunc(slices.Values(task.Timers), func(a, b snapshot.Timer) int { return int(a.ID) - int(b.ID) }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			const base = 0x10000000
			var got []proc.Timer
			err := ptrace.Run(t.Context(), ptrace.Options{ExitKill: true}, func(tr *ptrace.Tracer) error {
				p, err := stub.Start(tr, &stub.Layout{Area: snapshot.Range{Start: base, End: base + stub.AreaSize}, FirstFile: 30})
				if err != nil {
					return err
				}
				tree := &apply.Tree{Proc: proc.New(os.DirFS("/proc")), Note: t.Logf}
				task := &apply.Task{Task: &snapshot.Task{PID: snapshot.PID{p.PID}, Timers: timers}, Tree: tree, Remote: p, Dir: tree.Proc.Process(p.PID)}
				task.Threads = []*apply.Thread{{Thread: &snapshot.Thread{TID: snapshot.PID{p.PID}}, Task: task, Remote: p.Threads[0]}}
				err = errors.Join(make(task), Arm(task.Threads[0]))
				if err == nil {
					err = task.Run()
				}
				if err == nil {
					got, err = task.Dir.Timers()
				}
				return errors.Join(err, p.Destroy())
			})
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, func(a, b proc.Timer) int { return a.ID - b.ID })
			if len(got) != 3 || got[0].ID != 0 || got[1].ID != 3 || got[2].ID != 40 {
				t.Fatalf("%+v", got)
			}
			if got[2].Signal != 40 || got[2].Value != 0x1234567812345678 || got[1].Notify != "none" || got[0].ClockID != 7 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A number so high that it would take for ever is refused.
func TestNumberIsTooHigh(t *testing.T) {
	task := &apply.Task{Task: &snapshot.Task{PID: snapshot.PID{1}}}
	err := count(task, []snapshot.Timer{{ID: maxCounted + 1}})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
