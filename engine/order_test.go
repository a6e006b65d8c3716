//go:build amd64

package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// The stages of a dump and of a restore are those of CRIU, in its order, and with the pids that it tells.
func TestStagesAsCRIU(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	stages := func(transport criu.Transport) (list []string) {
		victim := testkit.StartVictim(t, "counter")
		images := t.TempDir()
		note := func(operation string) func(context.Context, *criu.Event) error {
			return func(_ context.Context, ev *criu.Event) error {
				pid := "no pid"
				if ev.PID == victim.Pid {
					pid = "the root's pid"
				} else if ev.PID != 0 {
					pid = fmt.Sprint(ev.PID)
				}
				list = append(list, fmt.Sprintf("%s: %s with %s, %d files", operation, ev.Name, pid, files(ev)))
				return nil
			}
		}
		client := criu.New(transport)
		if _, err := client.Dump(t.Context(), criu.DumpOptions{ImagesDir: images, PID: victim.Pid, Notify: note("dump")}); err != nil {
			t.Fatal(err)
		}
		if _, err := victim.Wait(); err != nil {
			t.Fatal(err)
		}
		child, err := client.RestoreChild(t.Context(), criu.RestoreOptions{ImagesDir: images, Notify: note("restore")})
		if err != nil {
			t.Fatal(err)
		}
		victim.Restored(child.PID)
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := child.Release(); err != nil {
			t.Fatal(err)
		}
		return list
	}
	theirs := stages(&criu.Swrk{Path: testkit.CRIUPath(t)})
	if diff := cmp.Diff(theirs, stages(New())); diff != "" {
		t.Errorf("(-CRIU +ours)\n%s", diff)
	}
}

func files(ev *criu.Event) int {
	if ev.File != nil {
		return 1
	}
	return 0
}
