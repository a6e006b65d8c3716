package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// What a client of a service can expect: it is not the peer's parent.
const remote = criutest.Notifies | criutest.Cancels | criutest.Explains

func TestConformanceOfService(t *testing.T) {
	eachEngine(t, func(t *testing.T, transport string) {
		s := startServer(t, transport, "")
		criutest.Run(t, criutest.Target{Can: remote, Real: func(testing.TB) criutest.Client {
			return criu.New(&criu.Service{Path: s.socket})
		}})
	})
}

// A peer that fails is told of in an answer: a client is never left with a conversation that just ends.
func TestPeerThatFails(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, tc := range []struct {
		name   string
		script criutest.Script
		want   string
	}{
		{"dead at once", criutest.Script{criutest.Close()}, ""},
		{"dead after the request", criutest.Script{criutest.Receive(), criutest.Close()}, "EOF"},
		{"dead in the course", criutest.Script{criutest.Receive(), criutest.Notify("pre-dump", 0), criutest.Close()}, "EOF"},
		{"garbage", criutest.Script{criutest.Receive(), criutest.SendRaw([]byte{0xff, 0xff})}, "malformed message"},
		{"megabytes", criutest.Script{criutest.Receive(), criutest.SendRaw(make([]byte, 2<<20))}, "too long"},
		{"a failure", criutest.Script{criutest.Receive(), criutest.Fail(syscall.ESRCH, "nobody there")}, "nobody there"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := criutest.NewPeer(t, tc.script)
			s := startServer(t, "socket:"+p.Service().Path, "")
			_, err := criu.New(&criu.Service{Path: s.socket}).Dump(t.Context(), criu.DumpOptions{PID: os.Getppid(), ImagesDir: t.TempDir()})
			if !errors.Is(err, criu.ErrFailed) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the client's error: %v, want a failure with %q", err, tc.want)
			}
		})
	}
}

// A client that has gone does not keep a worker for ever, whatever the peer does.
func TestClientThatGoes(t *testing.T) {
	testkit.Need(t, testkit.Root)
	received := make(chan bool, 1)
	p := criutest.NewPeer(t, criutest.Script{criutest.Receive(), criutest.Func(func(*criutest.Conn) error {
		received <- true
		return nil
	}), criutest.Hang()})
	s := startServer(t, "socket:"+p.Service().Path, "", func(s *Server) { s.MaxWorkers = 1 })
	conn, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Send(t.Context(), &rpc.Req{Type: rpc.ReqVersion}); err != nil {
		t.Fatal(err)
	}
	<-received
	conn.Close()
	// The only worker is free again when the next client's request reaches the peer.
	again, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Send(t.Context(), &rpc.Req{Type: rpc.ReqVersion}); err != nil {
		t.Fatal(err)
	}
	<-received
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := Listen(Address{Path: path, Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v, want mode 0600", info.Mode(), err)
	}

	t.Run("a live one is not replaced", func(t *testing.T) {
		if _, err := Listen(Address{Path: path, Group: -1}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the second service: %v, want EADDRINUSE", err)
		}
	})
	t.Run("a stale one is", func(t *testing.T) {
		if err := l.Abandon(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Fatal("the stale socket is not there:", err)
		}
		again, err := Listen(Address{Path: path, Mode: 0o660, Group: os.Getegid()})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != fs.ModeSocket|0o660 {
			t.Errorf("the socket: %v, %v, want mode 0660", info.Mode(), err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket after Close: %v", err)
		}
	})
	t.Run("what is no socket is not", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(Address{Path: file, Group: -1}); !errors.Is(err, syscall.EEXIST) {
			t.Errorf("on a file: %v, want EEXIST", err)
		}
		if text, _ := os.ReadFile(file); string(text) != "precious" {
			t.Error("the file is not what it was")
		}
	})
	t.Run("a successor's is not removed", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "socket")
		first, err := Listen(Address{Path: path, Group: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		second, err := Listen(Address{Path: path, Group: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		first.Close()
		if _, err := os.Stat(path); err != nil {
			t.Error("the first service removed the second's socket:", err)
		}
	})
	t.Run("a path that is long", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := Listen(Address{Path: filepath.Join(dir, "socket"), Group: -1})
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
}

func TestServeEndsWithRunningRequest(t *testing.T) {
	testkit.Need(t, testkit.Root)
	inside, goOn := make(chan bool), make(chan bool)
	p := criutest.NewPeer(t, criutest.Script{criutest.Receive(), criutest.Func(func(*criutest.Conn) error {
		inside <- true
		<-goOn
		return nil
	}), criutest.Answer()})
	s := startServer(t, "socket:"+p.Service().Path, "")
	client := criu.New(&criu.Service{Path: s.socket})

	// An idle conversation, which the end of the service closes.
	idle, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()

	result := make(chan error, 1)
	go func() {
		_, err := client.Version(t.Context())
		result <- err
	}()
	<-inside
	s.stop()
	testkit.WaitFor(t, "the socket to go", func() bool {
		_, err := os.Stat(s.socket)
		return errors.Is(err, os.ErrNotExist)
	})
	if _, err := idle.Recv(t.Context()); !errors.Is(err, criu.ErrTransport) {
		t.Errorf("the idle conversation: %v, want its end", err)
	}
	if _, err := client.Version(t.Context()); !errors.Is(err, criu.ErrConnect) {
		t.Errorf("a new request: %v, want ErrConnect", err)
	}
	select {
	case err := <-s.ended:
		t.Fatalf("the service ended with %v before the request that runs", err)
	default:
	}
	goOn <- true
	if err := <-result; err != nil {
		t.Errorf("the request that was running: %v", err)
	}
	s.ended <- <-s.ended
}

func TestLimits(t *testing.T) {
	testkit.Need(t, testkit.Root)
	p := criutest.NewPeer(t, criutest.Script{criutest.Serve()})
	open := func(s *testService) criu.Conn {
		t.Helper()
		conn, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	version := func(s *testService, ctx context.Context) error {
		_, err := criu.New(&criu.Service{Path: s.socket}).Version(ctx)
		return err
	}
	peer := "socket:" + p.Service().Path

	t.Run("workers", func(t *testing.T) {
		s := startServer(t, peer, "", func(s *Server) { s.MaxWorkers = 1 })
		first := open(s)
		waiting := make(chan error, 1)
		go func() { waiting <- version(s, t.Context()) }()
		// The first conversation is served though another waits, and the other once the first is over.
		if err := first.Send(t.Context(), &rpc.Req{Type: rpc.ReqVersion}); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		first.Close()
		if err := <-waiting; err != nil {
			t.Errorf("the one that waited: %v", err)
		}
	})
	t.Run("one user's", func(t *testing.T) {
		s := startServer(t, peer, "", func(s *Server) { s.MaxPerUser = 1 })
		held := s.clientCommand(attack{Type: rpc.ReqVersion, Wait: true}, mallory)
		in := startHeld(t, held)
		testkit.WaitFor(t, "the second to be refused", func() bool {
			resp := s.mustAsk(attack{Type: rpc.ReqCheck}, mallory)
			return !resp.Success && resp.CrErrno != nil && *resp.CrErrno == int32(syscall.EAGAIN)
		})
		if err := version(s, t.Context()); err != nil {
			t.Errorf("root meanwhile: %v", err)
		}
		in.Close()
		held.Wait()
	})
}

func TestRequestsThatCRIUGetsWrong(t *testing.T) { eachEngine(t, requestsThatCRIUGetsWrong) }

func requestsThatCRIUGetsWrong(t *testing.T, transport string) {
	s := startServer(t, transport, "")
	for _, tc := range []struct {
		name string
		req  rpc.Req
		want rpc.ReqType
		ok   bool
		text string
	}{
		{"NOTIFY", rpc.Req{Type: rpc.ReqNotify}, rpc.ReqEmpty, false, "NOTIFY is no request"},
		{"EMPTY", rpc.Req{Type: rpc.ReqEmpty}, rpc.ReqEmpty, false, "EMPTY is no request"},
		{"unknown", rpc.Req{Type: 99}, rpc.ReqEmpty, false, "99 is no request"},
		{"FEATURE_CHECK without features", rpc.Req{Type: rpc.ReqFeatureCheck}, rpc.ReqFeatureCheck, true, ""},
		{"CHECK without options", rpc.Req{Type: rpc.ReqCheck}, rpc.ReqCheck, true, ""},
		{"DUMP without options", rpc.Req{Type: rpc.ReqDump}, rpc.ReqDump, false, "needs options"},
		{"RESTORE without options", rpc.Req{Type: rpc.ReqRestore}, rpc.ReqRestore, false, "needs options"},
		{"keep_open with CHECK", rpc.Req{Type: rpc.ReqCheck, KeepOpen: new(true)}, rpc.ReqCheck, false, "keep_open cannot be had with CHECK"},
		{"no directory", rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{PID: new(int32(1)), ImagesDirFD: 1000}}, rpc.ReqDump, false, "no descriptor 1000"},
		{"no pid", rpc.Req{Type: rpc.ReqPreDump, Opts: &rpc.Opts{ImagesDirFD: -1}}, rpc.ReqPreDump, false, "needs a pid"},
		{"rst_sibling", rpc.Req{Type: rpc.ReqRestore, Opts: &rpc.Opts{ImagesDirFD: -1, RstSibling: new(true)}}, rpc.ReqRestore, false, "rst_sibling is not allowed in a service"},
		{"a log elsewhere", rpc.Req{Type: rpc.ReqCheck, Opts: &rpc.Opts{ImagesDirFD: -1, LogFile: new("../x")}}, rpc.ReqCheck, false, "is not the name of a file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.Send(t.Context(), &tc.req); err != nil {
				t.Fatal(err)
			}
			msg, err := conn.Recv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r := msg.Resp
			if r.Type != tc.want || r.Success != tc.ok || !strings.Contains(text(r), tc.text) {
				t.Errorf("answered %v, success %v, %q; want %v, %v, %q", r.Type, r.Success, text(r), tc.want, tc.ok, tc.text)
			}
		})
	}
}
