package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

// stasisOnly are subjects of which CRIU would bring back less than there was.
func stasisOnly() []subject {
	return []subject{victimOf("shared"), victimOf("leaderless"), victimOf("apart"), victimOf("apart", "shared"), victimOf("sharing"), victimOf("sharing", "strangers")}
}

// Images of what CRIU would restore wrongly, CRIU refuses by their version, and leaves nothing behind.
func TestCRIURefusesOurVersion(t *testing.T) {
	for _, s := range stasisOnly() {
		t.Run(s.name, func(t *testing.T) {
			testkit.Need(t, append(s.needs, testkit.Root, testkit.CRIU)...)
			victim := s.start(t)
			images := t.TempDir()
			s.run(t, stasis, images, "dump", "-t", fmt.Sprint(victim.Pid))
			if _, err := victim.Wait(); err != nil {
				t.Fatal(err)
			}
			testkit.AwaitFreeIDs(t, images)
			output, err := command(t, realCRIU, s.env, "restore", "-d", "-D", images, "-o", "criu.log", "-v4").CombinedOutput()
			if err == nil {
				t.Fatal("CRIU restores it")
			}
			text, err := os.ReadFile(filepath.Join(images, "criu.log"))
			if err != nil || !strings.Contains(string(text), "Not supported images version") {
				t.Errorf("CRIU refuses it for another reason: %v\n%s\n%s", err, output, text)
			}
			testkit.AwaitFreeIDs(t, images)
			s.run(t, stasis, images, "restore", "-d")
			victim.Restored()
			victim.MustVerify()
		})
	}
}
