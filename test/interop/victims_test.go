package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) {
	if os.Getenv(envStasis) != "" {
		os.Exit(runStasis())
	}
	testkit.Main(m)
}

// victims are the programs in test/victims that say ok or FAIL.
var victims = []struct {
	name string
	args []string
	// needs is what it needs beside itself.
	needs []testkit.Requirement
	// terminal says that it wants one, whose other end no dump of CRIU's command line can hold.
	terminal bool
	// frozen says that it is about being frozen and let go: CRIU's restore fails its calls with EINTR.
	frozen bool
}{
	{name: "apart"},
	{name: "apart", args: []string{"shared"}},
	{name: "blocked", args: []string{"1", "3"}, frozen: true},
	{name: "churn", frozen: true},
	{name: "chroot"},
	{name: "clock"},
	{name: "counter"},
	{name: "creds", args: []string{"rights"}},
	{name: "creds", args: []string{"threads"}},
	{name: "creds", args: []string{"user"}},
	{name: "ends"},
	{name: "events"},
	{name: "execs", frozen: true},
	{name: "files"},
	{name: "fpu"},
	{name: "ghosts"},
	{name: "handed"},
	{name: "interrupted", args: []string{"pause"}},
	{name: "job", terminal: true},
	{name: "leaderless"},
	{name: "limits"},
	{name: "lingers"},
	{name: "many", args: []string{"pages", "10"}},
	{name: "many", args: []string{"apart", "10"}},
	{name: "many", args: []string{"mappings", "10"}},
	{name: "many", args: []string{"sparse", "1"}},
	{name: "many", args: []string{"files", "10"}},
	{name: "many", args: []string{"threads", "10"}},
	{name: "many", args: []string{"processes", "10"}},
	{name: "many", args: []string{"environment", "100"}},
	{name: "manyfds"},
	{name: "mem", args: []string{"4"}},
	{name: "pages", args: []string{"huge"}, needs: []testkit.Requirement{testkit.Root, hugePages}},
	{name: "pages", args: []string{"merged"}, needs: []testkit.Requirement{mergedPages}},
	{name: "pages", args: []string{"merged", "all"}, needs: []testkit.Requirement{mergedPages}},
	{name: "pages", args: []string{"shared"}, needs: []testkit.Requirement{testkit.Root}},
	{name: "pages", args: []string{"swapped"}},
	{name: "pages", args: []string{"zero"}, needs: []testkit.Requirement{testkit.Root}},
	{name: "pipes"},
	{name: "posix"},
	{name: "posix", args: []string{"overruns"}},
	{name: "process", args: []string{"criu"}},
	{name: "pty", terminal: true},
	{name: "python", needs: []testkit.Requirement{testkit.Python}},
	{name: "queues"},
	{name: "queues", args: []string{"trap"}},
	{name: "rseq"},
	{name: "scheduled", args: []string{"criu"}},
	{name: "sessions"},
	{name: "shared"},
	{name: "sharing"},
	{name: "sharing", args: []string{"strangers"}},
	{name: "shell"},
	{name: "signals"},
	{name: "spawns", frozen: true},
	{name: "threads"},
	{name: "timers"},
	{name: "tree"},
	{name: "vmas"},
}

// start starts a victim, with a terminal if it wants one.
func start(t *testing.T, name string, terminal bool, args ...string) *testkit.Victim {
	t.Helper()
	spec := testkit.VictimSpec{Name: name, Args: args}
	if terminal {
		_, slave := testkit.OpenPTY(t)
		spec.Stdin, spec.Stdout, spec.Stderr = slave, slave, slave
		spec.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	return spec.Start(t)
}

// A victim that was left alone has nothing to complain of.
func TestVictims(t *testing.T) {
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			testkit.Need(t, append(v.needs, testkit.VictimProgram(v.name))...)
			start(t, v.name, v.terminal, v.args...).MustVerify()
		})
	}
}

// A victim that was spoiled finds out: its word is worth something.
func TestVictimsNotice(t *testing.T) {
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			testkit.Need(t, append(v.needs, testkit.VictimProgram(v.name))...)
			err := start(t, v.name, v.terminal, append(slices.Clone(v.args), "--sabotage")...).Verify()
			if err == nil || !strings.Contains(err.Error(), "FAIL ") {
				t.Errorf("a spoiled victim's verdict: %v", err)
			}
		})
	}
}

func TestExitcode(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("exitcode"))
	for _, tc := range []struct {
		args []string
		want syscall.WaitStatus
	}{
		{[]string{"0"}, 0},
		{[]string{"42"}, 42 << 8},
		{[]string{fmt.Sprint(256 + int(syscall.SIGTERM))}, syscall.WaitStatus(syscall.SIGTERM)},
		{[]string{"42", "--sabotage"}, 1 << 8},
	} {
		v := testkit.StartVictim(t, "exitcode", tc.args...)
		if err := v.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if status, err := v.Wait(); err != nil || status != tc.want {
			t.Errorf("exitcode %q ended with %#x, %v, want %#x", tc.args, status, err, tc.want)
		}
	}
}

// Every victim is in the tests above.
func TestVictimsAreListed(t *testing.T) {
	files, err := filepath.Glob("../victims/*.*")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{"exitcode": true}
	for _, v := range victims {
		listed[v.name] = true
	}
	for _, file := range files {
		name, ext, _ := strings.Cut(filepath.Base(file), ".")
		if slices.Contains([]string{"c", "sh", "py"}, ext) && !listed[name] {
			t.Errorf("%s is in no test", file)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("there is no victim %s", name)
	}
}
