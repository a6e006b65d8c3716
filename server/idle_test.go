package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// idler is a worker that answers every request with who it is, and says each time that it is idle.
func idler() error {
	if err := unix.SetNonblock(workerControl, true); err != nil {
		return err
	}
	control := os.NewFile(workerControl, "control")
	next := make(chan int, 1)
	go receiveConnections(control, next)
	for conn := range next {
		p, err := newPackets(conn)
		if err != nil {
			return err
		}
		if _, err := p.next(context.Background()); err != nil {
			return err
		}
		who := fmt.Sprintf("%d of uid %d", os.Getpid(), os.Getuid())
		if err := p.send(&rpc.Resp{Type: rpc.ReqVersion, Success: true, Version: &rpc.Version{MajorNumber: 1, Name: &who}}, nil); err != nil {
			return err
		}
		p.close()
		if err := sayIdle(control); err != nil {
			return nil
		}
	}
	return nil
}

// who asks a service whose workers are idlers which of them answers.
func (s *testService) who(uid uint32) string {
	s.t.Helper()
	resp := s.mustAsk(attack{Type: rpc.ReqVersion}, uid)
	if resp.Version == nil || resp.Version.Name == nil {
		s.t.Fatalf("answered %+v", resp)
	}
	return *resp.Version.Name
}

// A worker of root's serves one client after the other. One that is somebody else's may say that it is idle as often as it likes.
func TestIdleWorkers(t *testing.T) {
	testkit.Need(t, testkit.Root)
	s := startServer(t, "", "", func(s *Server) {
		s.MaxIdle, s.Worker.Args = 2, []string{"worker", wordIdler, "."}
	})
	users := s.who(mallory)
	if !strings.HasSuffix(users, fmt.Sprint("uid ", mallory)) {
		t.Fatalf("the worker of a user: %s", users)
	}
	for range 3 {
		if roots := s.who(0); !strings.HasSuffix(roots, "uid 0") {
			t.Errorf("root was served by %s", roots)
		}
	}
	testkit.WaitFor(t, "a worker to be used again", func() bool {
		first := s.who(0)
		return s.who(0) == first
	})
	if again := s.who(mallory); again == users || !strings.HasSuffix(again, fmt.Sprint("uid ", mallory)) {
		t.Errorf("a user was served by %s, before by %s", again, users)
	}
}

// A worker is there before its client is, for root alone: it serves the first one, another takes its place, and there are never
// more than were asked for, however the clients come. None is left when the service has ended.
func TestWorkersStartedAhead(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const most = 2
	s := startServer(t, "", "", func(s *Server) {
		s.MaxIdle, s.Worker.Args = most, []string{"worker", wordIdler, "."}
	})
	workers := func() (roots []int) {
		for _, pid := range childrenCalled(wordIdler) {
			if st, err := readStatus(pid, pid); err == nil && st.uids[0] == 0 {
				roots = append(roots, pid)
			}
		}
		return roots
	}
	var first []int
	testkit.WaitFor(t, "a worker before there is a client", func() bool {
		first = workers()
		return len(first) == 1
	})
	if user := s.who(mallory); strings.HasPrefix(user, fmt.Sprint(first[0], " ")) {
		t.Errorf("the worker that was there, %d, served a user: %s", first[0], user)
	}
	if root := s.who(0); root != fmt.Sprintf("%d of uid 0", first[0]) {
		t.Errorf("root was served by %s, though the worker %d was there", root, first[0])
	}
	testkit.WaitFor(t, "another for the next client", func() bool { return len(workers()) == most })
	var clients sync.WaitGroup
	for range 5 * most {
		clients.Go(func() {
			if _, err := criu.New(&criu.Service{Path: s.socket}).Version(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	testkit.WaitFor(t, "those that are too many to end", func() bool { return len(workers()) <= most })
	s.stop()
	s.ended <- <-s.ended
	if left := workers(); len(left) > 0 {
		t.Errorf("the service has ended, and these workers are there: %v", left)
	}
}

// A worker that waits and is killed costs no client anything.
func TestWorkerAheadThatIsKilled(t *testing.T) {
	testkit.Need(t, testkit.Root)
	s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle = 1 })
	for range 3 {
		dead := killWorker(t)
		testkit.WaitFor(t, "the worker to be gone", func() bool {
			_, err := os.Stat(procPath(dead, ""))
			return errors.Is(err, os.ErrNotExist)
		})
		if _, err := criu.New(&criu.Service{Path: s.socket}).Version(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Idle workers of the engine serve whoever comes, do not mix up clients, and end with the service.
func TestIdleWorkersOfEngine(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle = 2 })
	client := criu.New(&criu.Service{Path: s.socket})
	victims := []*testkit.Victim{testkit.StartVictim(t, "counter"), testkit.StartVictim(t, "counter")}
	for range 3 {
		for _, v := range victims {
			if _, err := client.Version(t.Context()); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Wait(); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err == nil {
				t.Fatal("a dump of nobody")
			}
			if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir}); err != nil {
				t.Fatal(err)
			}
			v.Restored()
		}
	}
	for _, v := range victims {
		v.MustVerify()
	}
}
