//go:build amd64

package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"stasis.example/image"
	"stasis.example/internal/testkit"
)

// envDump makes this test program dump a process again and again, until it is killed. envRounds is how many rounds the
// tests of sudden death go.
const (
	envDump   = "STASIS_DUMP_PID"
	envRounds = "STASIS_DEATH_ROUNDS"
)

func dumpWorker(pid int) int {
	dir, err := os.MkdirTemp(os.Getenv(envImages), "dump")
	for err == nil {
		var d image.Dir
		if d, err = image.OpenDir(dir); err == nil {
			err = Dump(context.Background(), DumpOptions{PID: pid, Images: d, LeaveRunning: true})
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// TestDumpDeath kills an engine that dumps, at random moments, and looks after the victim.
func TestDumpDeath(t *testing.T) {
	for _, c := range []struct {
		mib    int
		rounds int
		span   time.Duration
	}{
		{1, 20, 30 * time.Millisecond},
		{1024, 4, 1500 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%d MiB", c.mib), func(t *testing.T) {
			testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			v := testkit.StartVictim(t, "blocked", strconv.Itoa(c.mib), "3", "6")
			rounds := c.rounds
			if n, err := strconv.Atoi(os.Getenv(envRounds)); err == nil {
				rounds = n
			}
			for range rounds {
				dir, err := os.MkdirTemp("/dev/shm", "stasis-test-")
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(self)
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envDump, v.Pid), envImages+"="+dir)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5*time.Millisecond + time.Duration(rand.Int64N(int64(c.span)))) // the moment is what the test is about
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				if stderr.Len() > 0 {
					t.Fatalf("the worker: %s", stderr.String())
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				before := v.Ask()
				testkit.WaitFor(t, "the victim to go on", func() bool {
					now := strings.Fields(v.Ask())
					for i, n := range strings.Fields(before)[1:] {
						if now[0] != "rounds" || now[i+1] == n {
							return false
						}
					}
					return true
				})
			}
			v.MustVerify()
			t.Logf("%d deaths, 0 victims lost", rounds)
		})
	}
}
