//go:build amd64

package remote

import (
	"fmt"
	"os"
	"testing"

	"stasis.example/internal/testkit"
)

// sigRTMin is glibc's SIGRTMIN: the first two are its own.
const sigRTMin = 34

// TestSignalAndDeath sends a signal to a thread in a blocking call while the worker has it stopped, and kills the worker:
// before every step of the visit. Whatever the kernel makes of such a signal, EINTR or a restart, must come of it here.
func TestSignalAndDeath(t *testing.T) {
	for _, c := range []struct {
		call    string
		restart bool // the handler has SA_RESTART
		eintr   bool // what signal(7) says
	}{
		{"pause", false, true},
		{"pause", true, true},
		{"suspend", false, true},
		{"select", true, true},
		{"sleep", true, true},
		{"read", false, true},
		{"read", true, false},
		{"futex", false, true},
		{"futex", true, false},
		{"wait", false, true},
		{"epoll", true, true},
		{"sigwait", true, true},
	} {
		name, args := c.call, []string{c.call}
		if c.restart {
			name, args = name+" with SA_RESTART", append(args, "restart")
		}
		t.Run(name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("interrupted"))
			v := testkit.StartVictim(t, "interrupted", args...)
			stride := 5
			if os.Getenv(envRounds) != "" {
				stride = 1
			}
			var handled, interrupted int
			t.Cleanup(func() {
				if t.Failed() {
					call, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", v.Pid))
					status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", v.Pid, v.Pid))
					t.Logf("handled %d, interrupted %d; in call %s%s", handled, interrupted, call, status)
				}
			})
			ask := func() (h, i int) {
				line := v.Ask()
				if n, err := fmt.Sscanf(line, "handled %d interrupted %d", &h, &i); n != 2 {
					t.Fatalf("the victim says %q: %v", line, err)
				}
				return h, i
			}
			step := 1
			for ; ; step += stride {
				// Blocked in its call again, not on the way to it.
				testkit.WaitFor(t, "the victim to block", func() bool { return v.State() != "" && v.State()[0] == 'S' })
				if !ended(t, startWorker(t, v.Pid, fmt.Sprintf("%s=%d", envStep, step), fmt.Sprintf("%s=%d:%d", envSignal, v.Pid, sigRTMin))) {
					break
				}
				wantH, wantI := handled+1, interrupted
				if c.eintr {
					wantI++
				}
				testkit.WaitFor(t, fmt.Sprintf("the handler (%d) and EINTR (%d), after a death at step %d", wantH, wantI, step), func() bool {
					handled, interrupted = ask()
					return handled >= wantH && interrupted >= wantI
				})
				if handled != wantH || interrupted != wantI {
					t.Fatalf("after a signal and a death at step %d: handled %d, interrupted %d, want %d and %d", step, handled, interrupted, wantH, wantI)
				}
			}
			t.Logf("%d steps", step-1)
			v.MustVerify()
		})
	}
}
