//go:build amd64

package remote

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// TestFaultAtEveryStep fails the first call through the kernel's door, then the second, and so on until a visit gets
// through; or ends the visit's context there. The victim must be exactly as it was each time.
func TestFaultAtEveryStep(t *testing.T) {
	injected := errors.New("injected")
	for _, c := range []struct {
		name string
		act  func(cancel context.CancelFunc) error
		want error
	}{
		{"error", func(context.CancelFunc) error { return injected }, injected},
		{"cancel", func(cancel context.CancelFunc) error { cancel(); return nil }, context.Canceled},
	} {
		for _, b := range blockedVictims {
			t.Run(c.name+", "+b.name, func(t *testing.T) {
				testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
				v := testkit.StartVictim(t, "blocked", b.args...)
				w := watch(t, v, atoi(b.args[1]))
				for last := 1; ; last++ {
					ctx, cancel := context.WithCancel(t.Context())
					steps := 0
					err := visit(ctx, &linux.Kernel{Step: func(string) error {
						if steps++; steps == last {
							return c.act(cancel)
						}
						return nil
					}}, v.Pid)
					cancel()
					if err != nil && !errors.Is(err, c.want) {
						t.Fatalf("step %d: %v", last, err)
					}
					w.untouched(fmt.Sprintf("after step %d: %v", last, err))
					if steps < last {
						t.Logf("%d steps", steps)
						break
					}
				}
				w.alive("at the end")
				v.MustVerify()
			})
		}
	}
}
