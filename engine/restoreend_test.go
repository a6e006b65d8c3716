//go:build amd64

package engine

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// envRounds is how often the engine is killed at any moment; where it is set, it is also killed at each step of a restore, and not only
// at some.
const envRounds = "STASIS_DEATH_ROUNDS"

// What a restore begins to end with: where there are several processes, and where there is one.
const (
	tieing  = "unshare(CLONE_FILES)"
	keeping = "ptrace(PTRACE_SETOPTIONS)"
)

// An ending is of a victim that is restored by an engine that is killed at the end.
type ending struct {
	name    string
	args    []string
	begin   string
	stopped bool // it is restored to be left stopped
}

func (e *ending) String() string {
	name := strings.Join(append([]string{e.name}, e.args...), " ")
	if e.stopped {
		name += ", left stopped"
	}
	return name
}

var endings = []ending{
	{name: "threads", begin: keeping},
	{name: "threads", begin: keeping, stopped: true},
	{name: "apart", begin: keeping},
	{name: "apart", args: []string{"shared"}, begin: tieing},
	{name: "leaderless", begin: tieing},
	{name: "many", args: []string{"processes", "5"}, begin: tieing},
	{name: "many", args: []string{"processes", "5"}, begin: tieing, stopped: true},
	{name: "tree", begin: tieing},
	{name: "sharing", begin: tieing},
	{name: "sharing", args: []string{"strangers"}, begin: tieing},
	{name: "sessions", args: []string{"nested"}, begin: tieing},
	{name: "sessions", args: []string{"stopped"}, begin: tieing},
	{name: "sessions", args: []string{"killed"}, begin: keeping},
}

// An engine that is killed before a certain call leaves nothing of a tree; killed after it, it leaves all of it, which is in order. It is
// killed before each call from the first on that has to do with that.
func TestRestoreIsKilledAtItsEnd(t *testing.T) {
	for _, v := range endings {
		t.Run(v.String(), func(t *testing.T) {
			victim, images := dumped(t, v.name, v.args...)
			again := bringBack(t, victim, images)
			again.prepare(&v)
			nothing, whole := 0, 0
			for step := 1; dieAt(t, restoring, images, step); step++ {
				if again.left() {
					whole++
				} else if nothing++; whole > 0 {
					t.Errorf("step %d: nothing is left, and of an earlier step there was", step)
				}
			}
			t.Logf("nothing was left %d times, and %d times all", nothing, whole)
			if nothing == 0 || whole == 0 {
				t.Error("the moment that decides was not among them")
			}
			again.end()
		})
	}
}

// It need not be before a call that the engine is killed.
func TestRestoreIsKilledAtAnyMoment(t *testing.T) {
	for _, v := range endings {
		t.Run(v.String(), func(t *testing.T) {
			victim, images := dumped(t, v.name, v.args...)
			again := bringBack(t, victim, images)
			rounds := 10
			if n, err := strconv.Atoi(os.Getenv(envRounds)); err == nil {
				rounds = n
			}
			again.prepare(&v)
			t.Setenv(envStep, "0")
			span := min(killedAfter(t, images, -1), 3*time.Millisecond) // the rest is waiting
			if !again.left() {
				t.Fatal("the restore has brought back nothing")
			}
			nothing, whole := 0, 0
			for range rounds {
				killedAfter(t, images, time.Duration(rand.Int64N(int64(span))))
				if again.left() {
					whole++
				} else {
					nothing++
				}
			}
			t.Logf("of %d restores that were killed within %v, nothing was left %d times, and %d times all", rounds, span, nothing, whole)
		})
	}
}

// killedAfter starts a worker that restores, and kills it some time after it has begun to end; or waits for its end, where that is
// negative. It returns how long the worker has lived since it begun to end.
func killedAfter(t *testing.T, images string, pause time.Duration) time.Duration {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), envPID+"="+restoring, envImages+"="+images)
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	began := time.Now()
	if line != begun+"\n" {
		t.Fatalf("the worker says %q, %v", line, err)
	}
	if pause >= 0 {
		for time.Since(began) < pause { // the moment is what the test is about, and sleeps are longer
		}
		_ = cmd.Process.Kill()
	}
	if err := cmd.Wait(); err != nil && pause < 0 {
		t.Fatal(err)
	}
	return time.Since(began)
}

// A rerun is a victim that is brought back from the same images again and again.
type rerun struct {
	t      *testing.T
	victim *testkit.Victim
	images string
	size   int64 // of the victim's output
	all    int   // tasks that live when it has been restored
	halted int   // and of these those that are stopped

	stopped bool // they are left stopped
	changes bool // a file of the victim's, when it checks itself: it is killed instead
}

// bringBack restores a victim for the first time, and ends it again.
func bringBack(t *testing.T, victim *testkit.Victim, images string) *rerun {
	t.Helper()
	info, err := os.Stat(victim.Output)
	if err != nil {
		t.Fatal(err)
	}
	if err := restoreFrom(t.Context(), New(), images); err != nil {
		t.Fatal(err)
	}
	r := &rerun{t: t, victim: victim, images: images, size: info.Size(), all: living(t, images), halted: halted(t, images), changes: victim.Name == "files"}
	r.end()
	return r
}

// prepare says how workers restore the victim from here on, and from where on they count.
func (r *rerun) prepare(v *ending) {
	r.t.Setenv(envAfter, v.begin)
	if r.stopped = v.stopped; r.stopped {
		r.halted = r.all
		r.t.Setenv(envStop, "1")
	}
}

// left reports whether a restore that was killed has left the whole tree, which has to be in order, or nothing. Then it has that
// end, and all is as it was before.
func (r *rerun) left() bool {
	r.t.Helper()
	// Whom the kernel kills with the engine it has killed by now: before it tells of the engine's end.
	n := living(r.t, r.images)
	switch n {
	case r.all:
		r.end()
	case 0:
		testkit.AwaitFreeIDs(r.t, r.images)
	default:
		r.t.Fatalf("of %d tasks %d are left", r.all, n)
	}
	return n > 0
}

// end has a victim check itself, which ends it.
func (r *rerun) end() {
	r.t.Helper()
	// Whom the engine has let go by its end may still have to stop.
	testkit.WaitFor(r.t, "tasks to stop", func() bool { return halted(r.t, r.images) == r.halted })
	if r.stopped {
		r.goOn()
	}
	victim := *r.victim // what it says from here on, it will say once more
	victim.Restored()
	if r.changes {
		if err := victim.Kill(); err != nil {
			r.t.Fatal(err)
		}
	} else {
		victim.MustVerify()
	}
	if err := os.Truncate(victim.Output, r.size); err != nil {
		r.t.Fatal(err)
	}
	testkit.AwaitFreeIDs(r.t, r.images)
}

// goOn lets processes go on that were left stopped.
func (r *rerun) goOn() {
	r.t.Helper()
	for _, id := range tasks(r.t, r.images) {
		if err := unix.Kill(id, unix.SIGCONT); err != nil {
			r.t.Fatal(err)
		}
	}
}

// halted counts the tasks of a dump that are stopped.
func halted(t *testing.T, images string) (n int) {
	t.Helper()
	for _, id := range tasks(t, images) {
		if stat, err := proc.New(linux.Proc{}).Process(id).Stat(); err == nil && stat.State == 'T' {
			n++
		}
	}
	return n
}

// tasks returns the numbers of the tasks of a dump.
func tasks(t *testing.T, images string) (ids []int) {
	t.Helper()
	cores, err := filepath.Glob(filepath.Join(images, "core-*.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cores {
		var id int
		if _, err := fmt.Sscanf(filepath.Base(name), "core-%d.img", &id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// living counts the tasks of a dump that live, and that nobody has killed.
func living(t *testing.T, images string) (n int) {
	t.Helper()
	const exiting, kill = 4, 1 << (unix.SIGKILL - 1) // PF_EXITING
	for _, id := range tasks(t, images) {
		task := proc.New(linux.Proc{}).Process(id)
		stat, err := task.Stat()
		// A group that is to end shows why from the moment it is told to, also between taking the signal and setting out to exit.
		if err != nil || stat.State == 'Z' || stat.State == 'X' || stat.Flags&exiting != 0 || stat.ExitCode == int(unix.SIGKILL) {
			continue
		}
		if status, err := task.Status(); err == nil && (status.SigPnd|status.ShdPnd)&kill == 0 {
			n++
		}
	}
	return n
}
