//go:build amd64

package engine

import (
	"os"
	"strconv"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// scale is how many of a kind a process has, in every run of the tests and with STASIS_SCALE=full.
var scale = []struct {
	kind       string
	some, full int
}{
	{"pages", 20_000, 262_144},
	{"apart", 20_000, 200_000},
	{"mappings", 3_000, 65_000},
	{"sparse", 64, 64},
	{"files", 1_000, 10_000},
	{"threads", 100, 1_000},
	{"processes", 20, 100},
	{"environment", 1_024, 1_024},
}

// mostRestored is how many files a restore can hold where a process may have 20,000: it has each once for itself and once for
// the process that it makes.
const mostRestored = 9_000

// Many of a kind are left running as they were, and dumped once more, restored from that and still as they were.
func TestMany(t *testing.T) {
	for _, s := range scale {
		t.Run(s.kind, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("many"))
			n := s.some
			if os.Getenv("STASIS_SCALE") == "full" {
				n = s.full
			}
			victim := testkit.StartVictim(t, "many", s.kind, strconv.Itoa(n))
			if err := dumpTo(t, New(), t.TempDir(), victim.Pid, func(o *criu.DumpOptions) { o.LeaveRunning = true }); err != nil {
				t.Fatal(err)
			}
			if s.kind == "files" && n > mostRestored {
				victim.MustVerify()
				return
			}
			images := t.TempDir()
			if err := dumpTo(t, New(), images, victim.Pid, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := victim.Wait(); err != nil {
				t.Fatal(err)
			}
			testkit.AwaitFreeIDs(t, images)
			if err := restoreFrom(t.Context(), New(), images); err != nil {
				t.Fatal(err)
			}
			victim.Restored()
			victim.MustVerify()
		})
	}
}
