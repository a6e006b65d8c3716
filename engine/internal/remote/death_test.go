//go:build amd64

package remote

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stasis.example/internal/testkit"
)

// envRounds is how many rounds the tests of sudden death go; `make soak` and the numbers in README.md come from larger
// ones.
const envRounds = "STASIS_DEATH_ROUNDS"

func roundsWanted(otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(envRounds)); err == nil {
		return n
	}
	return otherwise
}

// blockedVictims are one thread, eight of a process, four with descriptors and working directories of their own, and four
// processes that share their memory.
var blockedVictims = []struct {
	name string
	args []string
}{
	{"1 thread", []string{"1", "1"}},
	{"8 threads", []string{"1", "8"}},
	{"4 threads apart", []string{"1", "4", "1", "apart"}},
	{"4 processes", []string{"1", "4", "1", "processes"}},
}

// TestDeathAtEveryStep kills the worker before its first call through the kernel's door, before its second and so on
// until it gets through, and looks after the victim each time.
func TestDeathAtEveryStep(t *testing.T) {
	for _, c := range blockedVictims {
		t.Run(c.name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
			v := testkit.StartVictim(t, "blocked", c.args...)
			threads := atoi(c.args[1])
			w := watch(t, v, threads)
			stride := 1
			if threads > 1 && os.Getenv(envRounds) == "" {
				stride = 7
			}
			step := 1
			for ; diesAt(t, v.Pid, step); step += stride {
				w.alive(fmt.Sprintf("after a death at step %d", step))
			}
			t.Logf("%d steps", step-1)
			w.asBefore()
			v.MustVerify()
		})
	}
}

// diesAt lets a worker die at a step and reports whether it did.
func diesAt(t *testing.T, pid, step int) bool {
	return ended(t, startWorker(t, pid, fmt.Sprintf("%s=%d", envStep, step)))
}

// TestDeathAtRandom kills a worker that visits its victim again and again, at any moment.
func TestDeathAtRandom(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		span time.Duration
	}{
		{"1 thread", []string{"1", "1"}, 40 * time.Millisecond},
		{"8 threads", []string{"1", "8"}, 60 * time.Millisecond},
		{"8 threads apart", []string{"1", "8", "1", "apart"}, 60 * time.Millisecond},
		{"8 processes", []string{"1", "8", "1", "processes"}, 60 * time.Millisecond},
		{"256 MiB", []string{"256", "2"}, 500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
			v := testkit.StartVictim(t, "blocked", c.args...)
			threads, _ := strconv.Atoi(c.args[1])
			w := watch(t, v, threads)
			rounds := roundsWanted(15)
			for round := range rounds {
				cmd := startWorker(t, v.Pid, envRepeat+"=1")
				time.Sleep(5*time.Millisecond + time.Duration(rand.Int64N(int64(c.span)))) // the moment is what the test is about
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				if !ended(t, cmd) {
					t.Fatal("the worker ended by itself")
				}
				if round%5 == 4 {
					w.alive(fmt.Sprintf("after %d deaths", round+1))
				}
			}
			w.alive("at the end")
			w.asBefore()
			v.MustVerify()
			t.Logf("%d deaths, 0 victims lost", rounds)
		})
	}
}

// A watcher looks after a victim.
type watcher struct {
	t       *testing.T
	v       *testkit.Victim
	threads int
	before  string
}

func watch(t *testing.T, v *testkit.Victim, threads int) *watcher {
	w := &watcher{t: t, v: v, threads: threads}
	w.alive("at the start")
	w.before = procText(t, v.Pid)
	return w
}

// alive makes sure that all threads of the victim go round, and that nothing but one scratch area was left in it.
func (w *watcher) alive(when string) {
	w.t.Helper()
	start := w.rounds(when)
	testkit.WaitFor(w.t, "all threads of the victim to go round "+when, func() bool {
		now := w.rounds(when)
		for i := range start {
			if now[i] == start[i] {
				return false
			}
		}
		return true
	})
	if w.before == "" {
		return
	}
	scratch := make(map[string]bool) // those who share memory show the same one
	var rest []string
	for line := range strings.Lines(procText(w.t, w.v.Pid)) {
		if strings.Contains(line, " rwxp 00000000 00:00 0") {
			scratch[line] = true
			continue
		}
		rest = append(rest, line)
	}
	if len(scratch) > 1 {
		w.t.Fatalf("%s %d scratch areas are left in the victim", when, len(scratch))
	}
	if after := strings.Join(rest, ""); after != w.before {
		w.t.Fatalf("%s the victim is not as it was:\n%s", when, cmp.Diff(w.before, after))
	}
}

func (w *watcher) rounds(when string) []int {
	w.t.Helper()
	line := w.v.Ask()
	fields := strings.Fields(line)
	if len(fields) != w.threads+1 || fields[0] != "rounds" {
		w.t.Fatalf("%s the victim says %q", when, line)
	}
	var n []int
	for _, f := range fields[1:] {
		n = append(n, atoi(f))
	}
	return n
}

// asBefore visits the victim once without dying, and makes sure that nothing at all is left in it then.
func (w *watcher) asBefore() {
	w.t.Helper()
	if err := visit(w.t.Context(), nil, w.v.Pid); err != nil {
		w.t.Fatal(err)
	}
	w.untouched("after a last visit")
}

// untouched makes sure that nothing of us is left in the victim.
func (w *watcher) untouched(when string) {
	w.t.Helper()
	if after := procText(w.t, w.v.Pid); after != w.before {
		w.t.Fatalf("%s the victim is not as it was:\n%s", when, cmp.Diff(w.before, after))
	}
}
