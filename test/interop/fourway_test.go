package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stasis.example/internal/cli"
	"stasis.example/internal/testkit"
)

// A way is who dumps and who restores.
type way struct{ dump, restore program }

// A program is one of the two whose command lines are the same.
type program string

const (
	stasis   program = "stasis"
	realCRIU program = "criu"
)

func (w way) String() string { return string(w.dump) + " to " + string(w.restore) }

// ways are all four. The last is the control: what fails there is no fault of ours.
func ways() []way {
	return []way{{stasis, stasis}, {stasis, realCRIU}, {realCRIU, stasis}, {realCRIU, realCRIU}}
}

// A subject is a program that is dumped and restored in the four ways and then asked whether it is as it was.
type subject struct {
	name string // of the test
	// start starts it; its process is the root of the tree.
	start func(t *testing.T) *testkit.Victim
	// check finds out whether it is as it was, and ends it; nil for the victim's own check.
	check func(t *testing.T, v *testkit.Victim)
	// before waits, where that is needed, for what the kernel does to it in its own time; dumped looks at the images.
	before func(t *testing.T, v *testkit.Victim)
	dumped func(t *testing.T, images string)
	needs  []testkit.Requirement
	// options are given to both, dumpOptions and restoreOptions to one.
	options, dumpOptions, restoreOptions []string
	// notByCRIU says why CRIU cannot dump it, notRestoredByCRIU why it cannot restore it, in words of this test. What CRIU
	// then must say itself is in criuSays.
	notByCRIU, notRestoredByCRIU string
	// env is added to CRIU's environment.
	env []string
}

// survives runs a subject in the four ways.
func (s subject) survives(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			testkit.Need(t, append(slices.Clone(s.needs), testkit.Root, testkit.CRIU)...)
			switch {
			case w.dump == realCRIU && s.notByCRIU != "":
				t.Logf("not possible: CRIU cannot dump it: %s", s.notByCRIU)
				return
			case w.restore == realCRIU && s.notRestoredByCRIU != "":
				t.Logf("not possible: CRIU cannot restore it: %s", s.notRestoredByCRIU)
				return
			}
			victim := s.start(t)
			if s.before != nil {
				s.before(t, victim)
			}
			images := t.TempDir()
			s.run(t, w.dump, images, append([]string{"dump", "-t", fmt.Sprint(victim.Pid)}, s.dumpOptions...)...)
			if _, err := victim.Wait(); err != nil {
				t.Fatal(err)
			}
			if s.dumped != nil {
				s.dumped(t, images)
			}
			testkit.AwaitFreeIDs(t, images)
			s.run(t, w.restore, images, append([]string{"restore", "-d"}, s.restoreOptions...)...)
			victim.Restored()
			if s.check != nil {
				s.check(t, victim)
				return
			}
			victim.MustVerify()
		})
	}
}

// run runs a command line, which has to succeed.
func (s subject) run(t *testing.T, p program, images string, args ...string) {
	t.Helper()
	log := args[0] + ".log"
	args = append(args, "-D", images, "-o", log, "-v4")
	args = append(args, s.options...)
	output, err := command(t, p, s.env, args...).CombinedOutput()
	if err == nil {
		return
	}
	text, _ := os.ReadFile(filepath.Join(images, log))
	var complaints []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") {
			complaints = append(complaints, line)
		}
	}
	t.Fatalf("%s %q: %v\n%s\n%s", p, args, err, output, strings.Join(complaints, ""))
}

// command is a command line of one of the two. Ours is this test program itself, called by another name.
func command(t *testing.T, p program, env []string, args ...string) *exec.Cmd {
	t.Helper()
	path := testkit.CRIUPath(t)
	if p == stasis {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		path = self
		env = []string{envStasis + "=1"}
		args = append(args, "--engine", "builtin")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), env...)
	// What is restored must not be in the session of the tests, nor get their signals.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// envStasis makes the test program the command line of stasis.
const envStasis = "STASIS_INTEROP_COMMAND"

func runStasis() int {
	p := cli.Program{Args: append([]string{"stasis"}, os.Args[1:]...), Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Exec: func(string, []string, []string) error { return errors.ErrUnsupported }}
	return p.Run(context.Background())
}

// victimOf is a victim as a subject.
func victimOf(name string, args ...string) subject {
	return subject{
		name:  strings.Join(append([]string{name}, args...), "-"),
		needs: []testkit.Requirement{testkit.VictimProgram(name)},
		start: func(t *testing.T) *testkit.Victim { return testkit.StartVictim(t, name, args...) },
	}
}
