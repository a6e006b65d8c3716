//go:build amd64

package remote

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// TestDeathOfStopped is TestDeathAtEveryStep with a victim that job control has stopped: it must stay stopped, and be
// itself when it is continued.
func TestDeathOfStopped(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	v := testkit.StartVictim(t, "blocked", "1", "8")
	w := watch(t, v, 8)
	stride := 7
	if os.Getenv(envRounds) != "" {
		stride = 1
	}
	step := 1
	for died := true; died; step += stride {
		if err := v.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stopped := func() bool { return strings.Trim(v.State(), "T") == "" }
		testkit.WaitFor(t, "the victim to stop", stopped)
		died = diesAt(t, v.Pid, step)
		testkit.WaitFor(t, fmt.Sprintf("the victim to be stopped again after a death at step %d", step), stopped)
		if step%3 == 0 {
			// A second engine, that has to do with threads which have not come back from the first.
			if err := visit(t.Context(), nil, v.Pid); err != nil {
				t.Fatalf("after a death at step %d: %v", step, err)
			}
			testkit.WaitFor(t, "the victim to be stopped once more", stopped)
		}
		if err := v.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		w.alive(fmt.Sprintf("after a death at step %d, stopped", step))
	}
	t.Logf("%d steps", step-1)
	w.asBefore()
	v.MustVerify()
}

// TestDeathRseq has a victim that is in a restartable sequence nearly all the time.
func TestDeathRseq(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("rseq"))
	v := testkit.StartVictim(t, "rseq")
	aborts := func() (n int) {
		if _, err := fmt.Sscanf(v.Ask(), "aborts %d", &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := aborts()
	for range 20 {
		if err := visit(t.Context(), nil, v.Pid); err != nil {
			t.Fatal(err)
		}
	}
	step := 1
	for ; diesAt(t, v.Pid, step); step += 3 {
		aborts()
	}
	if n := aborts() - before; n < 10 {
		t.Errorf("only %d sequences were aborted by %d visits: the victim is not where the test wants it", n, 20+step/3)
	}
	v.MustVerify()
}

// TestDeathInPIDNamespace has a victim whose ids are others inside.
func TestDeathInPIDNamespace(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	v := testkit.VictimSpec{
		Name: "blocked", Args: []string{"1", "8"},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID},
	}.Start(t)
	w := watch(t, v, 8)
	for step := 1; diesAt(t, v.Pid, step); step += 11 {
		w.alive(fmt.Sprintf("after a death at step %d", step))
	}
}

// TestDeathUnprivileged has a victim and a worker of an ordinary user.
func TestDeathUnprivileged(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	const nobody = 65534
	credential := &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	dir, err := os.MkdirTemp("", "unprivileged")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, victim := filepath.Join(dir, "worker"), filepath.Join(dir, "blocked")
	copyProgram(t, self, program)
	copyProgram(t, filepath.Join(testkit.SourceRoot(), "bin", "victims", "blocked"), victim)
	if err := os.WriteFile(victim+".out", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(victim+".out", 0o666); err != nil {
		t.Fatal(err)
	}
	v := testkit.VictimSpec{Name: victim, Args: []string{"1", "8"}, Dir: dir, SysProcAttr: credential}.Start(t)
	w := watch(t, v, 8)
	for step, died := 1, true; died; step += 11 {
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envPID, v.Pid), fmt.Sprintf("%s=%d", envStep, step))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = credential
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		died = ended(t, cmd)
		w.alive(fmt.Sprintf("after a death at step %d", step))
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	program, err := os.ReadFile(from)
	if err == nil {
		err = testkit.WriteProgram(to, program)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestForcedWritesForbidden has a kernel that does not let /proc/PID/mem write to code.
func TestForcedWritesForbidden(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	v := testkit.StartVictim(t, "blocked", "1", "2")
	w := watch(t, v, 2)
	refused := 0
	kernel := &linux.Kernel{Step: func(call string) error {
		if call != "pwrite /proc/PID/mem" {
			return nil
		}
		refused++
		return unix.EIO
	}}
	if err := visit(t.Context(), kernel, v.Pid); err != nil {
		t.Fatal(err)
	}
	if refused == 0 {
		t.Error("nothing was written by /proc/PID/mem in the first place")
	}
	w.untouched("after a visit")
	w.alive("after a visit")
	v.MustVerify()
}

// TestNoRoomInVDSO has a victim whose vDSO has no padding, so that the boot block goes to the end of its code.
func TestNoRoomInVDSO(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	v := testkit.StartVictim(t, "blocked", "1", "8")
	w := watch(t, v, 8)
	maps, err := proc.New(linux.Proc{}).Process(v.Pid).Maps()
	if err != nil {
		t.Fatal(err)
	}
	kernel := &linux.Kernel{}
	for _, m := range maps {
		if m.Path == "[vdso]" {
			if err := kernel.ForceMemory(v.Pid, m.End-8, []byte("occupied")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for step := 1; diesAt(t, v.Pid, step); step += 11 {
		w.alive(fmt.Sprintf("after a death at step %d", step))
	}
	w.asBefore()
	v.MustVerify()
}

// TestNoDescriptors has a victim that may open no more files, so that there is no park socket.
func TestNoDescriptors(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	v := testkit.StartVictim(t, "blocked", "1", "8")
	w := watch(t, v, 8)
	if err := unix.Prlimit(v.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4, Max: 4}, nil); err != nil {
		t.Fatal(err)
	}
	err := visit(t.Context(), nil, v.Pid)
	if err == nil || !strings.Contains(err.Error(), unix.EMFILE.Error()) {
		t.Fatalf("eventfd in a process without room for descriptors: %v", err)
	}
	w.untouched("after a visit")
	w.alive("after a visit")
	v.MustVerify()
}

// TestDeathOfGoProgram has a victim that is a Go program: this one, with goroutines, a busy collector, and preemption by
// signals.
func TestDeathOfGoProgram(t *testing.T) {
	testkit.Need(t, testkit.Root)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := testkit.VictimSpec{Name: self, Env: []string{envGoVictim + "=1"}}.Start(t)
	rounds := func() int {
		n, err := strconv.Atoi(strings.TrimPrefix(v.Ask(), "rounds "))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	step := 1
	for ; diesAt(t, v.Pid, step); step += 5 {
		before := rounds()
		testkit.WaitFor(t, fmt.Sprintf("the victim to go on after a death at step %d", step), func() bool { return rounds() > before })
	}
	t.Logf("%d steps", step-1)
	v.MustVerify()
}

const envGoVictim = "STASIS_GO_VICTIM"

// goVictim computes, allocates and collects, and checks what it has computed.
func goVictim() {
	asked := make(chan os.Signal, 16)
	signal.Notify(asked, unix.SIGUSR1, unix.SIGUSR2)
	out := bufio.NewWriter(os.Stdout)
	say := func(format string, args ...any) {
		fmt.Fprintf(out, format+"\n", args...)
		out.Flush()
	}
	results := make(chan string)
	for range 4 {
		go func() {
			for {
				sum, list := 0, make([][]byte, 0, 100)
				for i := range 100 {
					list = append(list, make([]byte, 1000*(i%10)+1))
					list[i][0] = byte(i)
				}
				for i := range list {
					sum += int(list[i][0])
				}
				time.Sleep(time.Millisecond)
				if sum != 4950 {
					results <- fmt.Sprintf("FAIL the sum is %d", sum)
				} else {
					results <- ""
				}
			}
		}()
	}
	go func() {
		for {
			runtime.GC()
		}
	}()
	say("ready")
	for n := 0; ; {
		select {
		case r := <-results:
			if n++; r != "" {
				say("%s", r)
				os.Exit(1)
			}
		case s := <-asked:
			if s == unix.SIGUSR1 {
				say("ok")
				os.Exit(0)
			}
			say("rounds %d", n)
		}
	}
}
