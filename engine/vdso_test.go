//go:build amd64

package engine

import (
	"os"
	"slices"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// A process whose vDSO is another kernel's gets this kernel's beside it, and finds it by the addresses that it has; so it does when
// it is dumped again, and restored in either way, and when CRIU restores it.
func TestRestoreWithOtherVDSO(t *testing.T) {
	for _, name := range []string{"clock", "counter", "tree", "threads"} {
		t.Run(name, func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram(name))
			victim := testkit.StartVictim(t, name)
			e := New()
			before := vdsoOf(t, victim.Pid)
			for cycle, other := range []bool{true, false, true, false} {
				images := t.TempDir()
				if err := dumpTo(t, e, images, victim.Pid, nil); err != nil {
					t.Fatal(err)
				}
				if _, err := victim.Wait(); err != nil {
					t.Fatal(err)
				}
				testkit.AwaitFreeIDs(t, images)
				if cycle == 3 {
					criuRestore(t, images)
				} else {
					e.otherVDSO = other
					if _, err := criu.New(e).Restore(t.Context(), criu.RestoreOptions{ImagesDir: images, LogFile: "restore.log", LogLevel: 4}); err != nil {
						t.Fatal(err)
					}
				}
				victim.Restored()
				now := vdsoOf(t, victim.Pid)
				if moved := now != before; moved != other && cycle < 3 {
					t.Errorf("cycle %d: the vDSO was at %#x and is at %#x", cycle, before, now)
				}
				before = now
			}
			victim.MustVerify()
		})
	}
}

func vdsoOf(t *testing.T, pid int) uint64 {
	t.Helper()
	mappings, err := proc.New(os.DirFS("/proc")).Process(pid).Maps()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(mappings, func(m proc.Mapping) bool { return m.Path == "[vdso]" })
	if i < 0 {
		t.Fatalf("process %d has no vDSO", pid)
	}
	return mappings[i].Start
}
