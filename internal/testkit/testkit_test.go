package testkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if leak := os.Getenv("TESTKIT_LEAK"); leak != "" {
		leakOnPurpose(leak)
		os.Exit(run(m, 200*time.Millisecond))
	}
	Main(m)
}

// leaked keeps what a helper process leaks out of the garbage collector's hands.
var leaked []any

// leakOnPurpose arranges for TestLeakOnPurpose, in a process of its own, to leak something.
func leakOnPurpose(kind string) {
	leakHere = func(t *testing.T) {
		switch kind {
		case "process", "stopped":
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if kind == "stopped" {
				if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				WaitFor(t, "the child to stop", func() bool { return taskStates(cmd.Process.Pid) == "T" })
			}
		case "orphan":
			if err := exec.Command("sh", "-c", "sleep 1000 & exit 0").Run(); err != nil {
				t.Fatal(err)
			}
		case "zombie":
			cmd := exec.Command("true")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			WaitFor(t, "the child to end", func() bool { return taskStates(cmd.Process.Pid) == "Z" })
		case "descriptor":
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			leaked = append(leaked, f)
		case "goroutine":
			go func() { select {} }()
		case "mount":
			if err := unix.Mount("testkit", t.TempDir(), "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
		case "nothing":
		default:
			t.Fatalf("unknown kind of leak %q", kind)
		}
	}
}

var leakHere func(*testing.T)

func TestLeakOnPurpose(t *testing.T) {
	if leakHere != nil {
		leakHere(t)
	}
}

func TestMainReportsLeaks(t *testing.T) {
	for _, tc := range []struct {
		kind, want string
		needs      []Requirement
	}{
		{kind: "process", want: "leaked process "},
		{kind: "stopped", want: "leaked STOPPED process "},
		{kind: "orphan", want: "leaked process "},
		{kind: "zombie", want: "leaked zombie "},
		{kind: "descriptor", want: "leaked descriptor "},
		{kind: "goroutine", want: "leaked goroutine "},
		{kind: "mount", want: "leaked mount on ", needs: []Requirement{Root}},
		{kind: "nothing"},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			t.Parallel()
			Need(t, tc.needs...)
			args := []string{os.Args[0], "-test.run=^TestLeakOnPurpose$"}
			cmd := exec.Command(args[0], args[1:]...)
			if len(tc.needs) > 0 {
				cmd = InNamespaces(t.Context(), t, args[0], args[1:]...) // where the mount goes away again
			}
			cmd.Env = append(os.Environ(), "TESTKIT_LEAK="+tc.kind)
			output, err := cmd.CombinedOutput()
			if tc.want == "" {
				if err != nil {
					t.Fatalf("without a leak: %v\n%s", err, output)
				}
				return
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
				t.Errorf("ended with %v, want exit status 1\n%s", err, output)
			}
			if !strings.Contains(string(output), tc.want) {
				t.Errorf("output lacks %q:\n%s", tc.want, output)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	yes := Requirement{Name: "it", Probe: func() error { return nil }}
	no := Requirement{Name: "it", Remedy: "get it", Probe: func() error { return Missing("it is gone") }}
	unknown := Requirement{Name: SoftDirty.Name, Probe: func() error { return unix.EIO }}
	excused := Requirement{Name: SoftDirty.Name, Probe: func() error { return fmt.Errorf("probe: %w", errors.ErrUnsupported) }}
	for _, tc := range []struct {
		name        string
		requirement Requirement
		must        bool
		skip, fatal string // the start of the message
	}{
		{name: "met", requirement: yes},
		{name: "met, must", requirement: yes, must: true},
		{name: "missing", requirement: no, skip: "needs it: it is gone (get it)"},
		{name: "missing, must", requirement: no, must: true, fatal: "needs it: it is gone (get it)"},
		{name: "could not tell", requirement: unknown, skip: "needs soft-dirty page tracking: "},
		{name: "could not tell, must", requirement: unknown, must: true, fatal: "needs soft-dirty page tracking: "},
		{name: "excused, must", requirement: excused, must: true, skip: "needs soft-dirty page tracking: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			skip, fatal := tc.requirement.verdict(tc.must)
			for _, check := range []struct {
				name string
				err  error
				want string
			}{{"skip", skip, tc.skip}, {"fatal", fatal, tc.fatal}} {
				if (check.err != nil) != (check.want != "") || check.err != nil && !strings.HasPrefix(check.err.Error(), check.want) {
					t.Errorf("%s: %v, want %q", check.name, check.err, check.want)
				}
			}
		})
	}
}

func TestIsSet(t *testing.T) {
	for value, want := range map[string]bool{"": false, "0": false, "false": false, "1": true, "true": true, "yes": true} {
		t.Setenv("TESTKIT_TEST", value)
		if got := isSet("TESTKIT_TEST"); got != want {
			t.Errorf("isSet with %q: %v", value, got)
		}
	}
}

func TestProbes(t *testing.T) {
	if err := probeProgram("/bin/sh"); err != nil {
		t.Errorf("/bin/sh: %v", err)
	}
	for _, path := range []string{"/nonexistent", "/etc", "/etc/passwd"} {
		if err := probeProgram(path); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v, want an error that says no", path, err)
		}
	}
	// Which answer it is depends on the kernel; that there is one does not.
	if err := probeSoftDirty(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("soft-dirty: could not tell: %v", err)
	}
}

func TestSourceRoot(t *testing.T) {
	want, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("STASIS_ROOT", "")
	if got := SourceRoot(); got != want {
		t.Errorf("SourceRoot() = %q, want %q", got, want)
	}
}

func TestReadStat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stat")
	for text, want := range map[string]stat{
		"12 (sh) S 1 12 12 0":          {"sh", 'S', 1},
		"12 (a) b) (c) t 345 12 12 0":  {"a) b) (c", 't', 345},
		"12 (new\nline) Z 1 12 12 0\n": {"new\nline", 'Z', 1},
		"12 sh S 1":                    {},
		"12 (sh) S":                    {},
		"12 (sh) S one 2":              {},
		"":                             {},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readStat(path)
		if got != want || (err == nil) != (want != stat{}) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestDirs(t *testing.T) {
	if got := FileSystemType(t, MemoryDir(t)); got != unix.TMPFS_MAGIC {
		t.Errorf("MemoryDir is on a file system of type %#x", got)
	}
	if got := FileSystemType(t, DiskDir(t)); got == unix.TMPFS_MAGIC {
		t.Error("DiskDir is on tmpfs")
	}
}

func TestPTY(t *testing.T) {
	master, slave := OpenPTY(t)
	if _, err := slave.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	var buf [16]byte
	n, err := master.Read(buf[:])
	if err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if err := master.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := master.Read(buf[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a read after its deadline: %v", err)
	}
}

func TestInNamespaces(t *testing.T) {
	Need(t, Root, Busybox)
	output, err := InNamespaces(t.Context(), t, BusyboxPath, "sh", "-c", "echo $$; ls -d /proc/[0-9]*").CombinedOutput()
	lines := strings.Fields(string(output))
	if err != nil || len(lines) < 2 || lines[0] != "1" || lines[1] != "/proc/1" || len(lines) > 3 {
		t.Fatalf("in namespaces: %v\n%s", err, output)
	}
}

func TestVictimLife(t *testing.T) {
	Need(t, VictimProgram("counter"))
	v := StartVictim(t, "counter", "1000")
	if state := v.State(); state != "S" && state != "R" {
		t.Errorf("the victim's state is %q", state)
	}
	if first, second := v.Ask(), v.Ask(); first == second || !strings.HasPrefix(first, "count ") {
		t.Errorf("the victim said %q, then %q", first, second)
	}
	v.MustVerify()
	if !v.Gone() {
		t.Error("the victim is still there after its verdict")
	}
}

func TestVictimThatFails(t *testing.T) {
	Need(t, VictimProgram("counter"))
	err := StartVictim(t, "counter", "--sabotage").Verify()
	if err == nil || !strings.Contains(err.Error(), "FAIL counted to") {
		t.Fatalf("a spoiled victim's verdict: %v", err)
	}
}

func TestVictimThatDies(t *testing.T) {
	Need(t, VictimProgram("counter"))
	v := StartVictim(t, "counter")
	if err := v.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := v.nextLine(); err == nil || !strings.Contains(err.Error(), "ended with signal killed") {
		t.Fatalf("the verdict of a dead victim: %v", err)
	}
}

func TestKillWholeTree(t *testing.T) {
	Need(t, Busybox)
	v := VictimSpec{Name: BusyboxPath, Args: []string{"sh", "-c", "sleep 1000 & echo ready; wait"}}.Start(t)
	var below []descendant
	child := -1
	WaitFor(t, "the child to execute its program", func() bool {
		var err error
		if below, err = descendants(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		child = slices.IndexFunc(below, func(d descendant) bool { return d.ppid == v.Pid })
		return child >= 0 && below[child].commandLine() == "sleep 1000"
	})
	if at := slices.IndexFunc(below, func(d descendant) bool { return d.pid == v.Pid }); at < 0 || child < at {
		t.Fatalf("descendants: %+v", below)
	}
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	// Kill has waited for both, although the child was the victim's and not ours.
	for _, pid := range []int{v.Pid, below[child].pid} {
		if states := taskStates(pid); states != "" {
			t.Errorf("process %d is still there, in state %s", pid, states)
		}
	}
}

func TestOrphansAreBuried(t *testing.T) {
	Need(t, Busybox)
	output, err := exec.Command(BusyboxPath, "sh", "-c", "sleep 0 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	proc := "/proc/" + strings.TrimSpace(string(output))
	WaitFor(t, "the orphan to be buried", func() bool {
		_, err := os.Stat(proc)
		return errors.Is(err, os.ErrNotExist)
	})
}

// A descriptor that was inherited does not get into a victim, from where a dump could not tell what it is.
func TestInheritedFilesStayHere(t *testing.T) {
	file, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if os.Getenv("TESTKIT_INHERIT") != "" {
		output, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
		fmt.Printf("%s\n%v\n", output, err)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "TESTKIT_INHERIT=1")
	cmd.ExtraFiles = []*os.File{file}
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), " 0 -> ") || strings.Contains(string(output), os.Args[0]) {
		t.Errorf("a child of a test has, %v\n%s", err, output)
	}
}

func TestAwaitFreeIDs(t *testing.T) {
	Need(t, Busybox)
	v := VictimSpec{Name: BusyboxPath, Args: []string{"sh", "-c", "echo ready; sleep 1000"}}.Start(t)
	images := t.TempDir()
	for _, name := range []string{fmt.Sprintf("core-%d.img", v.Pid), "core-x.img", "inventory.img"} {
		if err := os.WriteFile(filepath.Join(images, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isFree(t, null, v.Pid) {
		t.Error("a process's id is free")
	}
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	AwaitFreeIDs(t, images)
	if !isFree(t, null, v.Pid) {
		t.Error("the id is not free")
	}
}

// A program that was just written can be executed, whatever else is started at that moment.
func TestWriteProgram(t *testing.T) {
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for ctx.Err() == nil {
				_ = exec.Command("/bin/true").Run()
			}
		})
	}
	dir := t.TempDir()
	for i := range 200 {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := WriteProgram(path, program); err != nil {
			t.Error(err)
		}
		if err := exec.Command(path).Run(); err != nil {
			t.Errorf("program %d: %v", i, err)
		}
	}
	cancel()
	others.Wait()
}
