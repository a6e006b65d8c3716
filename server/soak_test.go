package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// soakVariable is how many times each client dumps and restores its process; 1 where it is not set.
const soakVariable = "SERVER_TEST_SOAK"

// Many clients at once, each with a process of its own: none is lost, and the service has no more descriptors after than
// before.
func TestManyClients(t *testing.T) { eachEngine(t, manyClients) }

func manyClients(t *testing.T, transport string) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	clients, rounds := 10, 1
	if n, err := strconv.Atoi(os.Getenv(soakVariable)); err == nil {
		clients, rounds = 50, n
	}
	s := startServer(t, transport, "")
	client := criu.New(&criu.Service{Path: s.socket})
	if _, err := client.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	victims := make([]*testkit.Victim, clients)
	for i := range victims {
		victims[i] = testkit.StartVictim(t, "counter")
	}
	before := descriptors(t)
	for range rounds {
		var all sync.WaitGroup
		for _, v := range victims {
			dir := t.TempDir()
			all.Go(func() {
				if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
					t.Error(err)
					return
				}
				if _, err := v.Wait(); err != nil {
					t.Error(err)
					return
				}
				if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
		for _, v := range victims {
			v.Restored()
		}
	}
	testkit.WaitFor(t, "the workers' descriptors to be given back", func() bool {
		return descriptors(t) <= before+rounds*clients // each victim is held by one more
	})
	for _, v := range victims {
		v.MustVerify()
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Two clients that dump one process: one of them does, the other is told why it cannot, and the process lives.
func TestTwoDumpsOfOneProcess(t *testing.T) { eachEngine(t, twoDumpsOfOneProcess) }

func twoDumpsOfOneProcess(t *testing.T, transport string) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	s := startServer(t, transport, "")
	v := testkit.StartVictim(t, "counter")
	client := criu.New(&criu.Service{Path: s.socket})
	second := make(chan error, 1)
	_, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), LeaveRunning: true,
		Notify: onceFrozen(func() {
			_, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), LeaveRunning: true})
			second <- err
		})})
	if err != nil {
		t.Error("the first:", err)
	}
	if err := <-second; err == nil || !strings.Contains(err.Error(), strconv.Itoa(v.Pid)) {
		t.Errorf("the second: %v, want an error that names the process", err)
	}
	v.MustVerify()
}

// A client that is gone when its process is frozen: the dump is undone, and the process lives.
func TestClientThatDiesInItsDump(t *testing.T) { eachEngine(t, clientThatDiesInItsDump) }

func clientThatDiesInItsDump(t *testing.T, transport string) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	s := startServer(t, transport, "")
	v := testkit.StartVictim(t, "counter")
	conn, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	req := &rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{ImagesDirFD: int32(dir.Fd()), PID: new(int32(v.Pid)), NotifyScripts: new(true)}}
	if err := conn.Send(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for {
		msg, err := conn.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if msg.Resp.Type != rpc.ReqNotify {
			t.Fatalf("answered %+v", msg.Resp)
		}
		if frozenAt(msg.Resp.Notify) {
			break
		}
		if err := conn.Send(t.Context(), &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true)}); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	testkit.WaitFor(t, "the process to run again", func() bool { return v.State() == "S" || v.State() == "R" })
	v.MustVerify()
}

// onceFrozen is a notification function that does something at the first notification from the frozen tree.
func onceFrozen(do func()) func(context.Context, *criu.Event) error {
	var once sync.Once
	return func(_ context.Context, e *criu.Event) error {
		if frozenAt(&rpc.Notify{Script: &e.Name}) {
			once.Do(do)
		}
		return nil
	}
}

// childrenCalled are the children of this process that have a word on their command line.
func childrenCalled(word string) (pids []int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for child := range strings.FieldsSeq(string(children)) {
			command, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if pid, err := strconv.Atoi(child); err == nil && strings.Contains(string(command), word) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// killWorker kills the one worker that this process has, once there is no other, and returns its pid.
func killWorker(t *testing.T) (pid int) {
	t.Helper()
	var workers []int
	testkit.WaitFor(t, "one worker to be left", func() bool {
		workers = childrenCalled(wordWorker)
		return len(workers) == 1
	})
	if err := syscall.Kill(workers[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return workers[0]
}

// A worker that is killed costs nobody but its client anything: the tree that it was dumping runs on, of the one that it was
// restoring nothing is left, and the service goes on.
func TestWorkerThatIsKilled(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "")
	client := criu.New(&criu.Service{Path: s.socket})
	v, dir := testkit.StartVictim(t, "counter"), t.TempDir()
	at := func(stage string) func(context.Context, *criu.Event) error {
		return func(_ context.Context, e *criu.Event) error {
			if e.Name == stage {
				killWorker(t)
			}
			return nil
		}
	}
	for _, stage := range []string{"pre-dump", "query-ext-files", "post-dump"} {
		_, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), Notify: at(stage)})
		if !errors.Is(err, criu.ErrTransport) {
			t.Errorf("killed at %s: %v", stage, err)
		}
		testkit.WaitFor(t, "the process to run again", func() bool { return v.State() == "S" || v.State() == "R" })
	}
	if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, stage := range []string{"pre-restore", "post-restore", "pre-resume"} {
		_, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir, Notify: at(stage)})
		if !errors.Is(err, criu.ErrTransport) {
			t.Errorf("killed at %s: %v", stage, err)
		}
		testkit.WaitFor(t, "what was restored to be gone", func() bool {
			_, err := os.Stat("/proc/" + strconv.Itoa(v.Pid))
			return errors.Is(err, os.ErrNotExist)
		})
	}
	if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	v.Restored()
	v.MustVerify()
}
