package cli

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"stasis.example/internal/testkit"
)

// In a pid namespace whose /proc is not mounted every number in /proc is another process's: whatever looks there is refused, and
// the processes that have the numbers are left alone.
func TestProcOfAnotherNamespace(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"), testkit.Program("unshare"))
	stasis, images := buildStasis(t), t.TempDir()
	v := testkit.StartVictim(t, "counter")
	if output, err := exec.Command(stasis, "dump", "-t", strconv.Itoa(v.Pid), "-D", images).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"dump", "-t", "1", "--leave-running", "-D", t.TempDir()},
		{"restore", "-D", images},
		{"service", "-W", t.TempDir()},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "unshare", append([]string{"--pid", "--fork", "--kill-child", "--", stasis}, args...)...)
		output, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(output), "/proc is not that of the pid namespace of this process") {
			t.Errorf("%s: %v: %s", args[0], err, output)
		}
	}
}
