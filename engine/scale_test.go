//go:build amd64

package engine

import (
	"os"
	"strconv"
	"testing"
	"time"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// scale is how many of a kind a process has, in every run of the tests and with STASIS_SCALE=full. Of files, 10,000 are restored
// by the interop tests: here each has two numbers, and the engine needs one more for each and one for the process that it makes.
var scale = []struct {
	kind       string
	some, full int
}{
	{"pages", 20_000, 262_144},
	{"apart", 20_000, 200_000},
	{"mappings", 65_000, 65_000},
	{"sparse", 64, 64},
	{"files", 9_000, 9_000},
	{"threads", 1_000, 1_000},
	{"processes", 100, 100},
	{"environment", 1_024, 1_024},
}

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
			images := t.TempDir()
			began := time.Now()
			endedByDump(t, victim, images)
			if s.kind == "sparse" {
				fewPages(t, images, time.Since(began))
			}
			restoredAfterAll(t, victim, images)
		})
	}
}

// fewPages checks that memory of which little is used costs little: not what it takes to look at each of its pages.
func fewPages(t *testing.T, images string, took time.Duration) {
	t.Helper()
	stats, err := criu.ReadDumpStats(images)
	if err != nil {
		t.Fatal(err)
	}
	const few, quick = 1000, 5 * time.Second
	if stats.PagesWritten > few || took > quick {
		t.Errorf("of %d pages %d were written, in %v", stats.PagesScanned, stats.PagesWritten, took)
	}
}
