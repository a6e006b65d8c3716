//go:build amd64

package engine

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// A tree that never rests is dumped again and again: nobody in it loses a signal, is interrupted, or sleeps too short. How often
// may be said by STASIS_CHURN.
func TestDumpOfChurn(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("churn"))
	dumps := 30
	if n, err := strconv.Atoi(os.Getenv("STASIS_CHURN")); err == nil {
		dumps = n
	}
	victim := testkit.StartVictim(t, "churn")
	images := t.TempDir()
	refusals := make(map[string]int)
	began := time.Now()
	for range dumps {
		err := dumpTo(t, New(), images, victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning = true })
		switch {
		case err == nil:
		case errors.Is(err, errors.ErrUnsupported):
			refusals[err.Error()]++
		default:
			t.Errorf("a dump: %v", err)
		}
	}
	t.Logf("%d dumps in %v", dumps, time.Since(began))
	for why, n := range refusals {
		t.Logf("%d times: %s", n, why)
	}
	before := churnRounds(t, victim)
	testkit.WaitFor(t, "everybody to go round", func() bool {
		now := churnRounds(t, victim)
		return !slices.ContainsFunc(now, func(n int) bool { return n == 0 }) && grown(before, now)
	})
	victim.MustVerify()
}

// Who executes program after program is dumped in one of them, goes on after that, and after a restore.
func TestDumpOfWhoExecutes(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("execs"))
	victim := testkit.StartVictim(t, "execs", "4")
	for range 30 {
		if err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning = true }); err != nil {
			t.Fatal(err)
		}
	}
	images := t.TempDir()
	endedByDump(t, victim, images)
	restoredAfterAll(t, victim, images)
}

func churnRounds(t *testing.T, victim *testkit.Victim) []int {
	t.Helper()
	line := victim.Ask()
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != "rounds" {
		t.Fatalf("the victim says %q", line)
	}
	var rounds []int
	for _, f := range fields[1:] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("the victim says %q", line)
		}
		rounds = append(rounds, n)
	}
	return rounds
}

func grown(before, now []int) bool {
	for i := range before {
		if now[i] <= before[i] {
			return false
		}
	}
	return true
}
