//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

var errInjected = errors.New("injected")

// startVictim starts one that is given as it would be called.
func startVictim(t *testing.T, line string) *testkit.Victim {
	t.Helper()
	words := strings.Fields(line)
	testkit.Need(t, testkit.Root, testkit.VictimProgram(words[0]))
	return testkit.StartVictim(t, words[0], words[1:]...)
}

// A dump that fails at any step leaves the tree as it was, and says so.
func TestDumpFailsAtEveryStep(t *testing.T) {
	for _, name := range []string{"threads", "tree", "leaderless", "ghosts", "apart shared", "sharing", "sharing strangers"} {
		t.Run(name, func(t *testing.T) {
			victim := startVictim(t, name)
			images := t.TempDir()
			steps, stride := 0, 1
			for step := 1; ; step += stride {
				count := 0
				e := New()
				e.kernel = &linux.Kernel{Step: func(call string) error {
					if count++; count == step {
						return fmt.Errorf("%w at step %d, %s", errInjected, step, call)
					}
					return nil
				}}
				err := dumpTo(t, e, images, victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning = true })
				if count < step {
					if err != nil {
						t.Fatal(err)
					}
					steps = count
					break
				}
				if err != nil && !errors.Is(err, errInjected) {
					t.Errorf("step %d: %v", step, err)
				}
				if state := victim.State(); state == "" {
					t.Fatalf("after step %d, %v, the victim is gone", step, err)
				}
				// Most steps are of the same kind.
				stride = 1 + step/100
			}
			t.Logf("%d steps", steps)
			victim.MustVerify()
		})
	}
}

// A dump that is cancelled at any moment, or whose time is over, leaves the tree as it was, and says so.
func TestDumpIsCancelledAtEveryStep(t *testing.T) {
	for _, name := range []string{"threads", "tree", "leaderless", "ghosts", "apart shared", "sharing", "sharing strangers"} {
		t.Run(name, func(t *testing.T) {
			victim := startVictim(t, name)
			images := t.TempDir()
			steps := 0
			for step := 1; ; step += 1 + step/20 {
				count := 0
				ctx, cancel := context.WithCancelCause(t.Context())
				e := New()
				e.kernel = &linux.Kernel{Step: func(string) error {
					if count++; count == step {
						cancel(context.DeadlineExceeded)
					}
					return nil
				}}
				_, err := criu.New(e).Dump(ctx, criu.DumpOptions{ImagesDir: images, PID: victim.Pid, LogFile: "dump.log", LeaveRunning: true})
				cancel(nil)
				if count < step {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				steps++
				// At the last steps the tree runs on already, and the dump is good.
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("step %d: %v", step, err)
				}
			}
			t.Logf("cancelled at %d steps", steps)
			victim.MustVerify()
		})
	}
}
