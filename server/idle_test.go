package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// idler is a worker that answers every request with who it is, and says each time that it has a client and that it waits for
// another.
func idler(r rules) error {
	w, ctx, err := newWorker(context.Background(), r)
	if err != nil {
		return err
	}
	defer w.close()
	return w.run(func(conn int, c *client) (bool, error) {
		w.busy()
		if c != nil {
			defer c.close()
		}
		p := newPackets(conn)
		defer p.close()
		if _, err := p.next(ctx); err != nil {
			return false, err
		}
		who := fmt.Sprintf("%d of uid %d", os.Getpid(), os.Getuid())
		resp := &rpc.Resp{Type: rpc.ReqVersion, Success: true, Version: &rpc.Version{MajorNumber: 1, Name: &who}}
		if err := p.send(resp, nil); err != nil {
			return false, err
		}
		if w.waiter == nil { // it has no say
			tell(w.control, wordWaits, -1)
			tell(w.control, wordGive, int(os.Stdin.Fd()))
		}
		return true, nil
	})
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
		s.MaxIdle, s.Worker.Args = 2, []string{"worker", wordIdler, ""}
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

// A user's worker, which that user has a hold on, gets the connections of root's.
func TestAttackWorkerThatWaits(t *testing.T) {
	eachWay(t, "apart", func(t *testing.T, off string) (bool, string) {
		s := startServer(t, "", off, func(s *Server) {
			s.MaxIdle, s.Worker.Args = 2, []string{"worker", wordIdler, off}
		})
		// Root's own workers have clients, which do not say anything.
		for range s.server.MaxIdle {
			waits := -1
			testkit.WaitFor(t, "a worker to wait", func() bool {
				for _, pid := range childrenCalled(wordIdler) {
					if waitsForClients(pid) {
						waits = pid
					}
				}
				return waits >= 0
			})
			held, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			testkit.WaitFor(t, "it to have a client", func() bool { return !waitsForClients(waits) })
		}
		var users int
		if _, err := fmt.Sscan(s.who(mallory), &users); err != nil {
			t.Fatal(err)
		}
		if off != "" {
			testkit.WaitFor(t, "the user's worker to wait", func() bool { return waitsForClients(users) })
		}
		for range 5 {
			if who := s.who(0); !strings.HasSuffix(who, "uid 0") {
				return true, who
			}
		}
		return false, "root was served by root's workers"
	})
}

// A user gets a worker that is root's.
func TestAttackWorkerOfRoots(t *testing.T) {
	eachWay(t, "apart", func(t *testing.T, off string) (bool, string) {
		s := startServer(t, "", off, func(s *Server) {
			s.MaxIdle, s.Worker.Args = 2, []string{"worker", wordIdler, off}
		})
		testkit.WaitFor(t, "a worker to wait", func() bool {
			workers := childrenCalled(wordIdler)
			return len(workers) == 1 && waitsForClients(workers[0])
		})
		who := s.who(mallory)
		return strings.HasSuffix(who, "uid 0"), who
	})
}

// A worker is there before its client is, for root alone: it serves the first one, another takes its place, and there are never
// more than were asked for, however the clients come. None is left when the service has ended.
func TestWorkersStartedAhead(t *testing.T) {
	testkit.Need(t, testkit.Root)
	const most = 2
	s := startServer(t, "", "", func(s *Server) {
		s.MaxIdle, s.Worker.Args = most, []string{"worker", wordIdler, ""}
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
		return len(first) == 1 && waitsForClients(first[0])
	})
	if user := s.who(mallory); strings.HasPrefix(user, fmt.Sprint(first[0], " ")) {
		t.Errorf("the worker that was there, %d, served a user: %s", first[0], user)
	}
	testkit.WaitFor(t, "it to wait again", func() bool { return waitsForClients(first[0]) })
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

// A worker that waits and is stopped costs no client anything: others are woken.
func TestWorkerAheadThatIsStopped(t *testing.T) {
	testkit.Need(t, testkit.Root)
	s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle = 2 })
	var workers []int
	testkit.WaitFor(t, "a worker to wait", func() bool {
		workers = childrenCalled(wordWorker)
		return len(workers) == 1 && waitsForClients(workers[0])
	})
	if err := unix.Kill(workers[0], unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(workers[0], unix.SIGCONT)
	testkit.WaitFor(t, "it to be stopped", func() bool { return stateOf(workers[0]) == "T" })
	for range 5 {
		if _, err := criu.New(&criu.Service{Path: s.socket}).Version(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func stateOf(pid int) string {
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

// waitsForClients reports whether a worker has come as far as to wait on the service's socket.
func waitsForClients(pid int) bool {
	tasks, _ := filepath.Glob(procPath(pid, "task/*/syscall"))
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		var call, epoll int
		if err != nil {
			continue
		}
		if n, _ := fmt.Sscanf(string(text), "%d %v", &call, &epoll); n == 2 {
			info, err := os.ReadFile(procPath(pid, "fdinfo/"+strconv.Itoa(epoll)))
			if err == nil && strings.Contains(string(info), fmt.Sprintf("tfd:%9d ", workerListen)) {
				return true
			}
		}
	}
	return false
}

// When the service ends, nobody has its socket any more, whatever its workers still do: who connects is not left waiting.
func TestSocketIsClosedByWorkers(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle = 2 })
	link := s.socket + "-link" // which stays when the service removes its name
	if err := os.Link(s.socket, link); err != nil {
		t.Fatal(err)
	}
	v := testkit.StartVictim(t, "counter")
	client := criu.New(&criu.Service{Path: s.socket})
	if _, err := client.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), LeaveRunning: true, Notify: onceFrozen(func() {
		s.stop()
		testkit.WaitFor(t, "the socket to be closed by all", func() bool {
			_, err := criu.New(&criu.Service{Path: link}).Version(t.Context())
			return errors.Is(err, unix.ECONNREFUSED)
		})
	})})
	if err != nil {
		t.Errorf("the dump that was running: %v", err)
	}
	v.MustVerify()
}

// Workers that wait count as connections: there are never more than may be, and yet everybody is served.
func TestWorkersAheadAreCounted(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, most := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle, s.MaxWorkers = 2, most })
			var clients sync.WaitGroup
			for n := range 8 {
				uid := uint32(n % 2 * mallory)
				clients.Go(func() {
					for range 3 {
						resp, err := s.ask(attack{Type: rpc.ReqVersion}, uid)
						if err != nil || !resp.Success {
							t.Errorf("uid %d: %+v, %v", uid, resp, err)
						}
						// At once are those that are there still when all have been found.
						there := childrenCalled(wordWorker)
						there = slices.DeleteFunc(there, func(pid int) bool { return strings.Contains("ZX", stateOf(pid)) })
						if len(there) > most {
							t.Errorf("there are %d workers", len(there))
						}
					}
				})
			}
			clients.Wait()
		})
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
