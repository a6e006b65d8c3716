package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stasis.example/internal/testkit"
)

// with changes a subject.
func (s subject) with(change func(*subject)) subject {
	change(&s)
	return s
}

// notCRIU says what CRIU cannot dump and what it cannot restore.
func notCRIU(dump, restore string) func(*subject) {
	return func(s *subject) { s.notByCRIU, s.notRestoredByCRIU = dump, restore }
}

// otherUser lets CRIU see the limits of other users' processes, which takes CAP_SYS_RESOURCE without the library.
func otherUser(s *subject) {
	library := filepath.Join(testkit.SourceRoot(), "bin", "victims", "prlimit.so")
	s.env = append(s.env, "LD_PRELOAD="+library)
	s.needs = append(s.needs, testkit.Requirement{Name: library, Remedy: "make victims", Probe: func() error {
		if _, err := os.Stat(library); err != nil {
			return testkit.Missing("%v", err)
		}
		return nil
	}})
}

// inChroot is a victim with a root directory of its own.
func inChroot(name string) subject {
	s := subject{name: name + "-chroot", needs: []testkit.Requirement{testkit.VictimProgram(name)}}
	s.start = func(t *testing.T) *testkit.Victim {
		root, outside := t.TempDir(), filepath.Join(t.TempDir(), "work")
		// Its directory has one name, outside and inside.
		inside := filepath.Join(root, outside)
		program, err := os.ReadFile(filepath.Join(testkit.SourceRoot(), "bin", "victims", name))
		if err := errors.Join(err, os.MkdirAll(inside, 0o755), os.Symlink(inside, outside), testkit.WriteProgram(filepath.Join(root, name), program)); err != nil {
			t.Fatal(err)
		}
		return testkit.VictimSpec{Name: "/" + name, Dir: outside, SysProcAttr: &syscall.SysProcAttr{Setsid: true, Chroot: root}}.Start(t)
	}
	s.check = func(t *testing.T, v *testkit.Victim) {
		inside, err := filepath.EvalSymlinks(v.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for link, want := range map[string]string{"root": strings.TrimSuffix(inside, v.Dir), "cwd": inside} {
			if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", v.Pid, link)); err != nil || got != want {
				t.Errorf("%s is %s, %v, want %s", link, got, err, want)
			}
		}
		v.MustVerify()
	}
	return s
}

// strays are processes that were left to a subreaper.
func strays(s *subject) {
	s.notRestoredByCRIU = "what was left to a subreaper becomes a child of CRIU's own parent"
}

// subjects are the victims that are dumped and restored in four ways. docs/state.md names them.
func subjects() []subject {
	return append(specialPages(), []subject{
		victimOf("chroot"),
		victimOf("clock"),
		victimOf("counter"),
		victimOf("creds", "rights").with(notCRIU("", "it restores the bounding set before the inheritable one")),
		victimOf("creds", "rights", "criu"),
		victimOf("creds", "threads").with(otherUser),
		victimOf("creds", "user").with(otherUser),
		inChroot("handed"),
		victimOf("ends"),
		victimOf("ends", "all").with(notCRIU("the packetized mode of pipes is not supported", "it would lose where packets end")),
		victimOf("events"),
		victimOf("events", "all").with(notCRIU("it turns a timerfd off that has expired, and loses EFD_SEMAPHORE", "it loses EFD_SEMAPHORE and the upper half of counters")),
		victimOf("files"),
		victimOf("fpu"),
		victimOf("ghosts"),
		victimOf("ghosts", "linked").with(func(s *subject) { s.dumpOptions = []string{"--link-remap"} }),
		inSharedMemory("ghosts"),
		deletedProgram("counter"),
		victimOf("python").with(func(s *subject) { s.needs = append(s.needs, testkit.Python) }),
		victimOf("interrupted", "pause"),
		victimOf("interrupted", "read"),
		victimOf("interrupted", "futex"),
		victimOf("interrupted", "wait"),
		victimOf("limits"),
		victimOf("manyfds", "10000"),
		victimOf("pipes"),
		victimOf("posix").with(notCRIU("it does not save whose processor time a timer counts", "")),
		victimOf("posix", "criu"),
		victimOf("posix", "overruns").with(notCRIU("", "it does not put back how often timers have overrun")),
		victimOf("process").with(notCRIU("it does not save what core dumps have", "it does not restore the personality")),
		victimOf("process", "criu"),
		victimOf("queues"),
		victimOf("queues", "trap").with(notCRIU("it does not dump threads for which a SIGTRAP waits", "it loses a SIGTRAP that waits")),
		victimOf("rseq"),
		victimOf("scheduled").with(notCRIU("it does not save processors and I/O priorities", "it knows no processors and I/O priorities")),
		victimOf("scheduled", "criu"),
		victimOf("shared").with(notCRIU("it refuses a working directory that several processes share", "the inventory has a version that it refuses")),
		victimOf("apart").with(notCRIU("it takes all threads to have what the first has", "the inventory has a version that it refuses")),
		victimOf("apart", "shared").with(notCRIU("it takes all threads to have what the first has", "the inventory has a version that it refuses")),
		victimOf("sharing").with(notCRIU("it refuses memory that several processes share", "the inventory has a version that it refuses")),
		victimOf("sharing", "strangers").with(notCRIU("it refuses memory that several processes share", "the inventory has a version that it refuses")),
		victimOf("interrupted", "epoll").with(notCRIU("it lets the call fail with EINTR", "")),
		victimOf("interrupted", "sigwait").with(notCRIU("it lets the call fail with EINTR", "")),
		victimOf("leaderless").with(notCRIU("it refuses a first thread that has exited", "the inventory has a version that it refuses")),
		victimOf("sessions", "nested"),
		victimOf("sessions", "stayed"),
		victimOf("sessions", "nogroup"),
		victimOf("sessions", "deadgroup"),
		victimOf("sessions", "nosession").with(strays),
		victimOf("sessions", "deadsession").with(strays),
		victimOf("sessions", "swapped").with(func(s *subject) { s.notRestoredByCRIU = "it waits for ever for each group to be there first" }),
		victimOf("sessions", "stopped"),
		victimOf("sessions", "killed"),
		victimOf("sessions").with(strays),
		victimOf("shell"),
		victimOf("signals"),
		victimOf("threads"),
		victimOf("timers"),
		victimOf("tree"),
		victimOf("vmas"),
	}...)
}

// What one program dumps, both restore.
func TestVictimsFourWays(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, s := range subjects() {
		t.Run(s.name, s.survives)
	}
}
