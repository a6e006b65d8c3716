//go:build amd64

package remote

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// stride is how many steps there are between those that are tried.
func stride() int {
	if os.Getenv(envRounds) != "" {
		return 1
	}
	return 5
}

// TestGuestIsKilled kills one of the processes that share memory at every step of a visit. The others must be as they were.
func TestGuestIsKilled(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	for step, got := 1, true; got; step += stride() {
		v := testkit.StartVictim(t, "blocked", "1", "3", "1", "processes")
		rest := children(v.Pid)
		killed := rest[0]
		got = killedAt(t, v.Pid, killed, step)
		if got {
			awaitZombie(t, killed)
			rest = rest[1:]
		}
		for _, pid := range append(rest, v.Pid) {
			goesOn(t, pid, step)
			noBlocks(t, pid, step)
		}
		v.MustVerify()
	}
}

// TestHostIsKilled kills the one by which the memory was entered.
func TestHostIsKilled(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("blocked"))
	for step, got := 1, true; got; step += stride() {
		v := testkit.StartVictim(t, "blocked", "1", "3", "1", "processes")
		guests := children(v.Pid)
		before := make([]string, len(guests))
		for i, pid := range guests {
			outlive(t, pid)
			before[i] = procTextOf(t, pid)
		}
		if got = killedAt(t, v.Pid, v.Pid, step); got {
			awaitZombie(t, v.Pid)
		}
		for i, pid := range guests {
			goesOn(t, pid, step)
			noBlocks(t, pid, step)
			if after := procTextOf(t, pid); after != before[i] {
				t.Errorf("step %d: before:\n%s\nafter:\n%s", step, before[i], after)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		text, err := os.ReadFile(v.Output)
		if err != nil {
			t.Fatal(err)
		}
		if said := string(text); strings.Contains(said, "FAIL") {
			t.Errorf("step %d: %s", step, said)
		}
	}
}

// killedAt visits a process and kills it, or another one of those that are visited, at a step. It reports whether there was one.
func killedAt(t *testing.T, pid, victim, step int) bool {
	t.Helper()
	count := 0
	err := visit(t.Context(), &linux.Kernel{Step: func(string) error {
		if count++; count == step {
			return unix.Kill(victim, unix.SIGKILL)
		}
		return nil
	}}, pid)
	if err != nil && count < step {
		t.Fatal(err)
	}
	return count >= step
}

// outlive makes a process of a victim live on when its parent is killed.
func outlive(t *testing.T, pid int) {
	t.Helper()
	err := ptrace.Run(t.Context(), ptrace.Options{}, func(tr *ptrace.Tracer) error {
		p, err := Freeze(tr, pid)
		if err != nil {
			return err
		}
		calls := []Call{NewCall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0)}
		return errors.Join(p.Enter(), p.Run(calls), Must(calls), p.Release())
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
}

func awaitZombie(t *testing.T, pid int) {
	t.Helper()
	testkit.WaitFor(t, fmt.Sprintf("process %d to end", pid), func() bool {
		state := TaskState(pid, pid)
		return state == 'Z' || state == 0
	})
}

// goesOn makes sure that a process runs: it goes round in some call or other.
func goesOn(t *testing.T, pid, step int) {
	t.Helper()
	switches := func() int {
		return statusNumber(pid, pid, "voluntary_ctxt_switches") + statusNumber(pid, pid, "nonvoluntary_ctxt_switches")
	}
	start := switches()
	testkit.WaitFor(t, fmt.Sprintf("process %d to go on after step %d", pid, step), func() bool { return switches() > start })
}

// noBlocks makes sure that no scratch area and no boot block is in a process.
func noBlocks(t *testing.T, pid, step int) {
	t.Helper()
	maps, err := proc.New(linux.Proc{}).Process(pid).Maps()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if m.Perm.String() == "rwxp" {
			t.Errorf("step %d: a scratch area is left in process %d", step, pid)
		}
		if m.Path != "[vdso]" {
			continue
		}
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			t.Fatal(err)
		}
		page := make([]byte, pageSize)
		_, err = mem.ReadAt(page, int64(m.End-pageSize))
		_ = mem.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(withoutBlock(page)) != len(page) || string(withoutBlock(page)) != string(page) {
			t.Errorf("step %d: a boot block is left in process %d", step, pid)
		}
	}
}

// A process whose child of vfork has not executed anything yet cannot be stopped. That is what a freeze then says.
func TestInVFork(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("sharing"))
	v := testkit.StartVictim(t, "sharing", "vfork")
	testkit.WaitFor(t, "the victim to wait in vfork", func() bool { return InVFork(v.Pid, v.Pid) })
	for _, child := range children(v.Pid) {
		if InVFork(child, child) {
			t.Errorf("process %d, the child, is said to wait in vfork", child)
		}
	}
}
