package server

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// idler is a worker that answers every request with who it is, and says each time that it is idle.
func idler() error {
	for _, fd := range []int{workerConn, workerControl} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
	}
	control := os.NewFile(workerControl, "control")
	next := make(chan int, 1)
	go receiveConnections(control, next)
	for conn, ok := workerConn, true; ok; conn, ok = <-next {
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
