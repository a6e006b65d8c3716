package criu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// stopped is a swrk child that a test can make hang.
type stopped struct {
	*criu.Swrk
	pid atomic.Int64
}

func newStopped(t testing.TB) *stopped {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.CRIU)
	// A CRIU that is killed while it probes the kernel leaves a mount of its own. One that lives is done with it at once.
	t.Cleanup(func() {
		left, _ := filepath.Glob("/tmp/.criu.move_mount_set_group.*")
		for _, dir := range left {
			testkit.WaitFor(t, dir+" to be gone or forgotten", func() bool {
				st, err := os.Stat(dir)
				return err != nil || time.Since(st.ModTime()) > 2*time.Second
			})
			unix.Unmount(dir, unix.MNT_DETACH)
			os.Remove(dir)
		}
	})
	s := &stopped{Swrk: &criu.Swrk{Path: testkit.CRIUPath(t)}}
	s.Started = func(pid int) error {
		s.pid.Store(int64(pid))
		return nil
	}
	return s
}

// at returns a callback that makes the peer hang at a stage, and ends the context.
func (s *stopped) at(t testing.TB, stage string, cancel func()) func(context.Context, *criu.Event) error {
	return func(_ context.Context, ev *criu.Event) error {
		if ev.Name != stage {
			return nil
		}
		if err := unix.Kill(int(s.pid.Load()), unix.SIGSTOP); err != nil { // a child of ours, not waited for
			t.Errorf("stop the peer: %v", err)
		}
		cancel()
		return nil
	}
}

// client does not wait long for a peer that will never answer.
func (s *stopped) client() *criu.Client {
	return criu.New(s.Swrk, criu.WithGrace(100*time.Millisecond))
}

// TestHangingRestore: a CRIU that hangs in the middle of a restore is killed, and what it has made goes with it.
func TestHangingRestore(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"), testkit.VictimProgram("tree"))
	for _, program := range []string{"counter", "tree"} {
		for _, child := range []bool{false, true} {
			for _, stage := range []string{"pre-restore", "post-restore", "pre-resume"} {
				t.Run(fmt.Sprintf("%s at %s as child %v", program, stage, child), func(t *testing.T) {
					criutest.NoLeaks(t)
					s, dir := newStopped(t), t.TempDir()
					c := s.client()
					v := testkit.StartVictim(t, program)
					dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					o := criu.RestoreOptions{ImagesDir: dir, Notify: s.at(t, stage, cancel)}
					start := time.Now()
					var err error
					if child {
						_, err = c.RestoreChild(ctx, o)
					} else {
						_, err = c.Restore(ctx, o)
					}
					if !errors.Is(err, context.Canceled) || !errors.Is(err, criu.ErrFailed) || !errors.Is(err, syscall.EBADE) {
						t.Errorf("a restore that hangs: %v", err)
					}
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("it took %v", took)
					}
					if exists(v.Pid) {
						t.Errorf("something is left under the pid %d", v.Pid)
					}
					if exists(int(s.pid.Load())) {
						t.Error("the peer is left")
					}
					restore(t, c, v, criu.RestoreOptions{ImagesDir: dir}) // nothing is in the way
					v.MustVerify()
				})
			}
		}
	}
}

// TestHangingRestoreAnywhere stops the peer at moments that no notification marks.
func TestHangingRestoreAnywhere(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("tree"))
	s, dir := newStopped(t), t.TempDir()
	c := s.client()
	v := testkit.StartVictim(t, "tree")
	dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
	hung := 0
	for i := range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		s.Started = func(pid int) error {
			time.AfterFunc(time.Duration(i)*5*time.Millisecond, func() { unix.Kill(pid, unix.SIGSTOP) })
			return nil
		}
		var err error
		if i%2 == 0 {
			_, err = c.Restore(ctx, criu.RestoreOptions{ImagesDir: dir})
		} else {
			_, err = c.RestoreChild(ctx, criu.RestoreOptions{ImagesDir: dir})
		}
		cancel()
		if err == nil { // it was done before it was stopped
			p := testkit.OpenProcess(t, v.Pid)
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			pidFree(t, v.Pid)
			continue
		}
		hung++
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d ms: %v", i*5, err)
		}
		if exists(v.Pid) {
			t.Fatalf("%d ms: something is left under the pid %d", i*5, v.Pid)
		}
	}
	t.Logf("%d of 30 restores hung", hung)
	if hung == 0 {
		t.Error("no restore was stopped in its course")
	}
	s.Started = nil
	restore(t, c, v, criu.RestoreOptions{ImagesDir: dir})
	v.MustVerify()
}

// TestHangingDump: a CRIU that hangs in the middle of a dump is killed, and the victim goes on as if nothing was.
func TestHangingDump(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	for _, stage := range []string{"pre-dump", "query-ext-files", "post-dump"} {
		t.Run(stage, func(t *testing.T) {
			criutest.NoLeaks(t)
			s := newStopped(t)
			v := testkit.StartVictim(t, "counter")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := s.client().Dump(ctx, criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), Notify: s.at(t, stage, cancel)})
			if !errors.Is(err, context.Canceled) || !errors.Is(err, criu.ErrFailed) {
				t.Errorf("a dump that hangs: %v", err)
			}
			counts(t, v)
			v.MustVerify()
		})
	}
}

// freezer makes a cgroup that can be frozen, and puts a process into it.
func freezer(t testing.TB, pid int) string {
	t.Helper()
	testkit.Need(t, testkit.Feature("the freezer of cgroup v1", func() error {
		if _, err := os.Stat("/sys/fs/cgroup/freezer/tasks"); err != nil {
			return testkit.Missing("%v", err)
		}
		return nil
	}))
	dir := filepath.Join("/sys/fs/cgroup/freezer", fmt.Sprintf("stasis-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		testkit.WaitFor(t, "the cgroup to be empty", func() bool { return unix.Rmdir(dir) == nil })
	})
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHangingDumpOfFrozenCgroup: CRIU freezes the cgroup by itself; one that is killed leaves it frozen unless the
// client thaws it.
func TestHangingDumpOfFrozenCgroup(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	for _, stage := range []string{"query-ext-files", "post-dump"} {
		t.Run(stage, func(t *testing.T) {
			s := newStopped(t)
			v := testkit.StartVictim(t, "counter")
			cgroup := freezer(t, v.Pid)
			t.Cleanup(func() { // before the victim's own, which could not kill what is frozen
				os.WriteFile(filepath.Join(cgroup, "freezer.state"), []byte("THAWED"), 0)
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := s.client().Dump(ctx, criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), FreezeCgroup: cgroup, Notify: s.at(t, stage, cancel)})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a dump that hangs: %v", err)
			}
			state, err := os.ReadFile(filepath.Join(cgroup, "freezer.state"))
			if err != nil || strings.TrimSpace(string(state)) != "THAWED" {
				t.Fatalf("the cgroup is left %q, %v", state, err)
			}
			counts(t, v)
			v.MustVerify()
		})
	}
}

// TestHangingDumpAnywhere stops the peer at moments that no notification marks, with a cgroup that it freezes.
func TestHangingDumpAnywhere(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("threads"))
	s := newStopped(t)
	c := s.client()
	v := testkit.StartVictim(t, "threads")
	cgroup := freezer(t, v.Pid)
	t.Cleanup(func() { os.WriteFile(filepath.Join(cgroup, "freezer.state"), []byte("THAWED"), 0) })
	hung, lost, frozen := 0, 0, new(atomic.Int64)
	for i := range 40 {
		signal := unix.SIGSTOP
		if i%2 == 1 {
			signal = unix.SIGKILL // one that dies by itself, as for lack of memory
		}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		s.Started = func(pid int) error {
			time.AfterFunc(time.Duration(i)*time.Millisecond+10*time.Millisecond, func() {
				unix.Kill(pid, signal)
				if state, err := os.ReadFile(filepath.Join(cgroup, "freezer.state")); err == nil && !strings.Contains(string(state), "THAWED") {
					frozen.Add(1)
				}
			})
			return nil
		}
		_, err := c.Dump(ctx, criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), LeaveRunning: true, FreezeCgroup: cgroup})
		cancel()
		if err != nil {
			hung++
			if !errors.Is(err, context.DeadlineExceeded) && !(signal == unix.SIGKILL && errors.Is(err, criu.ErrTransport)) {
				t.Errorf("%d ms: %v", i+10, err)
			}
		}
		state, err := os.ReadFile(filepath.Join(cgroup, "freezer.state"))
		if err != nil || strings.TrimSpace(string(state)) != "THAWED" {
			t.Fatalf("%d ms: the cgroup is left %q, %v", i+10, state, err)
		}
		if v.Gone() || strings.Contains(v.State(), "Z") { // ended, or just ending
			// While a task runs CRIU's code, the death of CRIU can end it: at an int3 without a tracer (SIGTRAP), or in code that
			// is not there any more (SIGSEGV). CRIU killed 2,982 times in the middle of a dump, with no client about, did the
			// one 61 times and the other 7. No client can do anything about it. Any other end would be another matter.
			status, err := v.Wait()
			if err != nil || !status.Signaled() || status.Signal() != unix.SIGTRAP && status.Signal() != unix.SIGSEGV {
				t.Fatalf("%d ms: the victim ended with %#x, %v", i+10, int(status), err)
			}
			lost++
			v = testkit.StartVictim(t, "threads")
			if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(v.Pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
		if states := v.State(); strings.ContainsAny(states, "tT") {
			t.Fatalf("%d ms: the victim's threads are in the states %s", i+10, states)
		}
	}
	t.Logf("%d of 40 dumps hung, %d with the cgroup frozen; CRIU lost %d victims", hung, frozen.Load(), lost)
	v.MustVerify()
}

// TestGrace: a peer that takes its time to undo what it did has that time.
func TestGrace(t *testing.T) {
	peer := criutest.NewPeer(t, criutest.Script{criutest.Receive(), criutest.Notify("pre-dump", 0),
		criutest.Sleep(300 * time.Millisecond), criutest.Notify("network-unlock", 0), criutest.Fail(syscall.EINTR, "undone")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := criu.New(peer.Swrk(), criu.WithGrace(testkit.Patience))
	_, err := c.Dump(ctx, criu.DumpOptions{PID: os.Getpid(), ImagesDir: t.TempDir(), Notify: func(context.Context, *criu.Event) error {
		cancel()
		return nil
	}})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, syscall.EINTR) || !strings.Contains(err.Error(), "undone") {
		t.Errorf("a dump that was undone in time: %v", err)
	}
	for i, req := range peer.Requests()[1:] {
		if req.Type != rpc.ReqNotify || req.NotifySuccess == nil || *req.NotifySuccess {
			t.Errorf("notification %d was answered with %+v, want a refusal", i, req)
		}
	}
}

// TestGraceIsAnEnd: a peer that has not answered when the time is over is killed, and not before.
func TestGraceIsAnEnd(t *testing.T) {
	const grace = 400 * time.Millisecond
	for _, success := range []bool{false, true} {
		t.Run(fmt.Sprintf("success %v", success), func(t *testing.T) {
			criutest.NoLeaks(t)
			script := criutest.Script{criutest.Receive(), criutest.Hang()}
			if success { // what was completed all the same is a success
				script = criutest.Script{criutest.Receive(), criutest.Sleep(grace / 2), criutest.Answer()}
			}
			c := criu.New(criutest.NewPeer(t, script).Swrk(), criu.WithGrace(grace))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := c.Dump(ctx, criu.DumpOptions{PID: os.Getpid(), ImagesDir: t.TempDir()})
			if success {
				if err != nil {
					t.Errorf("a dump that was completed: %v", err)
				}
				return
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a dump that hangs: %v", err)
			}
			if took := time.Since(start); took < grace {
				t.Errorf("the peer was killed after %v", took)
			}
		})
	}
}
