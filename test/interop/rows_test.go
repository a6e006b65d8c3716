package interop

import (
	"testing"

	"stasis.example/internal/testkit"
)

// with changes a subject.
func (s subject) with(change func(*subject)) subject {
	change(&s)
	return s
}

// subjects are the victims that are dumped and restored in four ways. docs/state.md names them.
func subjects() []subject {
	return []subject{
		victimOf("counter"),
		victimOf("interrupted", "pause"),
		victimOf("interrupted", "read"),
		victimOf("interrupted", "futex"),
		victimOf("interrupted", "wait"),
		victimOf("pipes"),
		victimOf("rseq"),
		victimOf("shell"),
		victimOf("signals"),
		victimOf("threads"),
		victimOf("timers"),
		victimOf("tree"),
		victimOf("vmas"),
	}
}

// What one program dumps, both restore.
func TestVictimsFourWays(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, s := range subjects() {
		t.Run(s.name, s.survives)
	}
}
