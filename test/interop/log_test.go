package interop

import (
	"fmt"
	"os"
	"testing"

	"stasis.example/internal/testkit"
)

// A file that is open for appending is a log: others may write to it while the process is not there.
func TestLogsMayGrow(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) {
			s := victimOf("counter")
			victim := s.start(t)
			images := t.TempDir()
			s.run(t, w.dump, images, "dump", "-t", fmt.Sprint(victim.Pid))
			if _, err := victim.Wait(); err != nil {
				t.Fatal(err)
			}
			log, err := os.OpenFile(victim.Output, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := log.WriteString("another has written this\n"); err != nil {
				t.Fatal(err)
			}
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			testkit.AwaitFreeIDs(t, images)
			s.run(t, w.restore, images, "restore", "-d")
			victim.Restored()
			if line := victim.NextLine(); line != "another has written this" {
				t.Errorf("the log goes on with %q", line)
			}
			victim.MustVerify()
		})
	}
}
