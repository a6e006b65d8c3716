//go:build amd64

package engine

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"stasis.example/image"
	"stasis.example/internal/testkit"
)

func restoreFrom(t testing.TB, dir string) (int, error) {
	t.Helper()
	d, err := image.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return Restore(t.Context(), RestoreOptions{Images: d})
}

// dumpByCRIU dumps a process with CRIU and kills it.
func dumpByCRIU(t *testing.T, pid int, dir string) {
	t.Helper()
	cmd := exec.Command(testkit.CRIUPath(t), "dump", "-t", strconv.Itoa(pid), "-D", dir, "-v4", "-o", "dump.log")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("criu dump: %v\n%s", err, out)
	}
}

// TestRestore restores what this engine and what CRIU has dumped, and lets the victims check themselves.
func TestRestore(t *testing.T) {
	for _, by := range []string{"stasis", "CRIU"} {
		for _, args := range victims {
			t.Run(by+" "+strings.Join(args, " "), func(t *testing.T) {
				testkit.Need(t, testkit.Root, testkit.VictimProgram(args[0]))
				v := testkit.StartVictim(t, args[0], args[1:]...)
				dir := testkit.MemoryDir(t)
				if by == "CRIU" {
					dumpByCRIU(t, v.Pid, dir)
				} else if err := dumpTo(t, dir, DumpOptions{PID: v.Pid}); err != nil {
					t.Fatal(err)
				}
				if _, err := v.Wait(); err != nil {
					t.Fatal(err)
				}
				pid, err := restoreFrom(t, dir)
				if err != nil {
					t.Fatal(err)
				}
				v.Restored(pid)
				v.MustVerify()
			})
		}
	}
}
