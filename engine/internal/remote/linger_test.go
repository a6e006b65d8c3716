//go:build amd64

package remote

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// TestDeathUnderHandler kills a worker with a signal under way, so that the handler runs on the way back and would return to it. While
// it still runs, another worker visits the thread, and dies too, before each of its steps: then the first way back must not
// have become the second's.
func TestDeathUnderHandler(t *testing.T) {
	for name, args := range map[string][]string{"same stack": nil, "own stack": {"stack"}} {
		t.Run(name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("lingers"))
			v := testkit.StartVictim(t, "lingers", args...)
			signal := fmt.Sprintf("%s=%d:%d", envSignal, v.Pid, sigRTMin)
			const somewhere = 40 // steps of a visit that the first death is spread over
			step := 1
			for again := true; again; step++ {
				// Blocked in its call again, not on the way to it, where a handler would interrupt nothing.
				testkit.WaitFor(t, "the victim to block", func() bool { return v.State() != "" && v.State()[0] == 'S' })
				if first := step * 7 % somewhere; !ended(t, startWorker(t, v.Pid, fmt.Sprintf("%s=%d", envStep, first+1), signal)) {
					t.Fatalf("a visit has no step %d", first+1)
				}
				if line, want := v.NextLine(), fmt.Sprintf("handling %d", step); line != want {
					t.Fatalf("after two deaths at step %d the victim says %q, not %q", step-1, line, want)
				}
				again = diesAt(t, v.Pid, step)
				if err := v.Signal(unix.SIGUSR2); err != nil {
					t.Fatal(err)
				}
				if line, want := v.NextLine(), fmt.Sprintf("back %d", step); line != want {
					t.Fatalf("after two deaths, the second at step %d, the victim says %q, not %q", step, line, want)
				}
			}
			t.Logf("%d steps", step-1)
			v.MustVerify()
		})
	}
}
