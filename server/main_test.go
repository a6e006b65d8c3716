package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/engine"
	"stasis.example/internal/testkit"
)

// Words that make the test program something else.
const (
	wordWorker  = "server-test-worker"  // CRIU-or-SOCKET RULES-OFF
	wordClient  = "server-test-client"  // an attack, in JSON
	wordConnect = "server-test-connect" // SOCKET
	wordIdler   = "server-test-idler"   // RULES-OFF: a worker that says who it is, and always that it waits
	wordSelf    = "server-test-self"    // a selfDumper, in JSON
)

// swrkVariable is the peer behind `swrk`, in the environment.
const swrkVariable = "SERVER_TEST_SWRK"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "swrk": // what package criu starts; the environment says what is behind
			if peer := os.Getenv(swrkVariable); peer != "" {
				fd, _ := strconv.Atoi(os.Args[2])
				o := testOptions(peer)
				os.Exit(report(Swrk(context.Background(), fd, o)))
			}
		case wordWorker:
			os.Exit(testWorker(os.Args[2], os.Args[3]))
		case wordClient:
			os.Exit(testClient(os.Args[2]))
		case wordIdler:
			os.Exit(report(idler(without(os.Args[2]))))
		case wordSelf:
			var h selfDumper
			if err := json.Unmarshal([]byte(os.Args[2]), &h); err != nil {
				os.Exit(report(err))
			}
			os.Exit(report(h.run()))
		case wordConnect:
			os.Exit(report(connectAndWait(os.Args[2])))
		}
	}
	criutest.ServeSwrk()
	testkit.Main(m)
}

// connectAndWait connects an inherited socket and stays until standard input ends.
func connectAndWait(path string) error {
	if err := unix.Connect(3, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	fmt.Println("connected")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// builtin is the transport of the engine in the worker process itself.
const builtin = "builtin"

// testOptions are those of a conversation with a CRIU, with whoever listens on a socket, or with the built-in engine.
func testOptions(name string) Options {
	o := Options{HangUpGrace: testGrace}
	if socket, ok := strings.CutPrefix(name, "socket:"); ok {
		o.Transport = &criu.Service{Path: socket}
	} else if name == builtin {
		o.Transport, o.TellCaller = engine.New(), true
	} else {
		o.Transport = &Proxy{Swrk: criu.Swrk{Path: name}}
	}
	return o
}

// eachEngine runs a test in front of a CRIU and of the built-in engine.
func eachEngine(t *testing.T, test func(t *testing.T, transport string)) {
	t.Helper()
	testkit.Need(t, testkit.Root)
	t.Run("criu", func(t *testing.T) {
		testkit.Need(t, testkit.CRIU)
		test(t, testkit.CRIUPath(t))
	})
	t.Run(builtin, func(t *testing.T) { test(t, builtin) })
}

// testGrace is short: what hangs in a test hangs for ever.
const testGrace = 200 * time.Millisecond

// testWorker is a worker process with some of the rules switched off.
func testWorker(transport, off string) int {
	r := without(off)
	o := testOptions(transport)
	o.rules, o.Log = &r, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	return report(Work(context.Background(), o))
}

// without is all rules but those named, with commas between.
func without(off string) rules {
	r := allRules()
	for name := range strings.SplitSeq(off, ",") {
		switch name {
		case "":
		case "table":
			r.table = false
		case "become":
			r.become = false
		case "rootIsRoot":
			r.rootIsRoot = false
		case "peerPIDFD":
			r.peerPIDFD = false
		case "takeFiles":
			r.takeFiles = false
		case "ownTree":
			r.ownTree = false
		case "afterFreeze":
			r.afterFreeze = false
		case "translate":
			r.translate = false
		case "logFile":
			r.logFile = false
		case "confine":
			r.confine = false
		case "apart":
			r.apart = false
		default:
			panic("no rule " + name)
		}
	}
	return r
}

// attack is what a client process does.
type attack struct {
	Socket string
	Type   rpc.ReqType
	PID    int32
	Images string // a directory that the client opens
	Work   string // another
	Chroot string // that the client has made its root directory before it asks
	Opts   map[string]any
	// Filtered has the client put itself under a seccomp filter.
	Filtered bool
	Raw      bool // send what Opts says without checking
	// Notify asks for notifications and answers them with yes.
	Notify bool
	// Wait reads a line from standard input between connecting and asking.
	Wait bool
	// ImagesFD is the number of the images directory, where it is not opened.
	ImagesFD int32
}

// request builds what an attack sends.
func (a attack) request() (*rpc.Req, error) {
	req := &rpc.Req{Type: a.Type}
	opts := &rpc.Opts{ImagesDirFD: -1}
	if a.ImagesFD > 0 {
		opts.ImagesDirFD = a.ImagesFD
	}
	if a.Images != "" {
		fd, err := unix.Open(a.Images, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: a.Images, Err: err}
		}
		opts.ImagesDirFD = int32(fd)
	}
	if a.Work != "" {
		fd, err := unix.Open(a.Work, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: a.Work, Err: err}
		}
		opts.WorkDirFD = new(int32(fd))
	}
	if a.PID != 0 {
		opts.PID = new(a.PID)
	}
	fields := reflect.ValueOf(opts).Elem()
	for name, value := range a.Opts {
		f := fields.FieldByName(name)
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, f.Addr().Interface()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	req.Opts = opts
	return req, nil
}

// testClient asks, and prints the answer as JSON.
func testClient(text string) int {
	var a attack
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return report(err)
	}
	ctx := context.Background()
	conn, err := (&criu.Service{Path: a.Socket}).Open(ctx, criu.Call{Op: a.Type})
	if err != nil {
		return report(err)
	}
	defer conn.Close()
	if a.Wait {
		fmt.Println("connected")
		if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
			return report(err)
		}
	}
	req, err := a.request()
	if err != nil {
		return report(err)
	}
	if a.Chroot != "" {
		if err := unix.Chroot(a.Chroot); err != nil {
			return report(err)
		}
		if os.Getuid() != 0 {
			// Of the main thread, which this is, and whose are the process's to others.
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			if err := unix.Capset(&header, &make([]unix.CapUserData, 2)[0]); err != nil {
				return report(err)
			}
		}
	}
	if a.Filtered {
		if err := filterSelf(); err != nil {
			return report(err)
		}
	}
	if a.Notify {
		req.Opts.NotifyScripts = new(true)
	}
	if err := conn.Send(ctx, req); err != nil {
		return report(err)
	}
	for {
		msg, err := conn.Recv(ctx)
		if err != nil {
			return report(err)
		}
		if msg.Resp.Type == rpc.ReqNotify {
			if err := conn.Send(ctx, &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true)}); err != nil {
				return report(err)
			}
			continue
		}
		return report(json.NewEncoder(os.Stdout).Encode(msg.Resp))
	}
}

// A testService is a Server in this process, whose workers are this program.
type testService struct {
	t      testing.TB
	socket string
	server *Server
	ended  chan error
	stop   context.CancelFunc
	log    chan string // closed never; holds the last lines
}

// startServer starts a service, open to everyone, in front of a transport.
func startServer(t testing.TB, transport, off string, change ...func(*Server)) *testService {
	t.Helper()
	dir := testkit.SharedDir(t)
	r := without(off)
	s := &testService{t: t, socket: filepath.Join(dir, "socket"), ended: make(chan error, 1), log: make(chan string, 1000)}
	s.server = &Server{
		Worker: Command{Args: []string{"worker", wordWorker, transport, off}, Env: os.Environ()},
		Grant:  true, rules: &r,
		Log: func(format string, args ...any) {
			line := fmt.Sprintf(format, args...)
			select {
			case s.log <- line:
			default:
			}
		},
	}
	for _, f := range change {
		f(s.server)
	}
	l, err := Listen(Address{Path: s.socket, Mode: 0o666, Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.ended <- s.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for len(s.log) > 0 {
				t.Log(<-s.log)
			}
		}
	})
	return s
}

// Users that nobody has.
const (
	mallory = 61500
	victor  = 61501
)

// as makes a command another user's.
func as(cmd *exec.Cmd, uid uint32) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	return cmd
}

// clientCommand is a process that carries out an attack.
func (s *testService) clientCommand(a attack, uid uint32) *exec.Cmd {
	s.t.Helper()
	a.Socket = s.socket
	text, err := json.Marshal(a)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", wordClient, string(text))
	cmd.Dir = "/"
	return as(cmd, uid)
}

// ask has a process of a user's ask the service.
func (s *testService) ask(a attack, uid uint32) (*rpc.Resp, error) {
	s.t.Helper()
	return outcome(s.clientCommand(a, uid))
}

func outcome(cmd *exec.Cmd) (*rpc.Resp, error) {
	output, err := cmd.Output()
	// A server in this process may have ended the thread that started the client, whose status testkit.Main then takes.
	if err != nil && !(errors.Is(err, unix.ECHILD) && len(output) > 0) {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, err
	}
	resp := new(rpc.Resp)
	if err := json.Unmarshal(output, resp); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output)
	}
	return resp, nil
}

// answerTo runs a client that something else starts, and returns the answer that must come.
func answerTo(t *testing.T, cmd *exec.Cmd) *rpc.Resp {
	t.Helper()
	cmd.Dir = "/"
	resp, err := outcome(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// mustAsk is ask where an answer must come.
func (s *testService) mustAsk(a attack, uid uint32) *rpc.Resp {
	s.t.Helper()
	resp, err := s.ask(a, uid)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

// text is a response's error text.
func text(r *rpc.Resp) string {
	if r.CrErrmsg == nil {
		return ""
	}
	return *r.CrErrmsg
}

// victimOf starts a victim that belongs to a user.
func victimOf(t testing.TB, uid uint32) *testkit.Victim {
	t.Helper()
	testkit.Need(t, testkit.VictimProgram("counter"))
	return testkit.VictimSpec{Name: "counter", UID: int(uid)}.Start(t)
}

// restorableVictim is a victim that CRIU restores as a user on any machine. Of one that could gain privileges it takes
// the capabilities that this machine lacks from the bounding set, even though they are not in it, which only root may.
func restorableVictim(t testing.TB, uid uint32) *testkit.Victim {
	t.Helper()
	testkit.Need(t, testkit.VictimProgram("counter"), testkit.Program("setpriv"))
	return testkit.VictimSpec{Name: "/usr/bin/setpriv", Args: []string{"--no-new-privs", "--", testkit.VictimPath(t, "counter")}, UID: int(uid)}.Start(t)
}
