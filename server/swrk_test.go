package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	gocriu "github.com/checkpoint-restore/go-criu/v8"
	gorpc "github.com/checkpoint-restore/go-criu/v8/rpc"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// swrkOf is a swrk child that proxies to a CRIU, or has the built-in engine in it.
func swrkOf(transport string) *criu.Swrk {
	path, err := os.Executable() // not /proc/self/exe, which is another program where the peer is started by one in between
	if err != nil {
		panic(err)
	}
	return &criu.Swrk{Path: path, Env: append(os.Environ(), swrkVariable+"="+transport)}
}

func TestConformanceOfSwrk(t *testing.T) {
	eachEngine(t, func(t *testing.T, transport string) {
		criutest.Run(t, criutest.Target{Can: criutest.Everything, Real: func(testing.TB) criutest.Client { return criu.New(swrkOf(transport)) }})
	})
}

// The peer inherits what the client lets its swrk child inherit, under the number that it has there.
func TestSwrkInheritedFiles(t *testing.T) { eachEngine(t, swrkInheritedFiles) }

func swrkInheritedFiles(t *testing.T, transport string) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, tc := range []struct {
		name   string
		number int32
		ok     bool
	}{{"inherited", 4, true}, {"of the server's own", 5, false}, {"none", 900, false}} {
		t.Run(tc.name, func(t *testing.T) {
			swrk := swrkOf(transport)
			swrk.ExtraFiles = []*os.File{w}
			conn, err := swrk.Open(t.Context(), criu.Call{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// A restore from nowhere fails, but by CRIU's word only where the descriptor was right.
			dir, err := os.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			req := &rpc.Req{Type: rpc.ReqRestore, Opts: &rpc.Opts{ImagesDirFD: int32(dir.Fd()),
				InheritFD: []*rpc.InheritFD{{Key: "pipe[1]", FD: tc.number}}}}
			if err := conn.Send(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			msg, err := conn.Recv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			const noDescriptor = 9
			refused := msg.Resp.CrErrno != nil && *msg.Resp.CrErrno == noDescriptor
			if refused == tc.ok {
				t.Errorf("descriptor %d: %v, %q", tc.number, msg.Resp.CrErrno, text(msg.Resp))
			}
		})
	}
}

// go-criu's own client finds no difference.
func TestGoCRIUClient(t *testing.T) { eachEngine(t, goCRIUClient) }

func goCRIUClient(t *testing.T, transport string) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	t.Setenv(swrkVariable, transport)
	c := gocriu.MakeCriu()
	c.SetCriuPath("/proc/self/exe")
	version, err := c.GetCriuVersion()
	if err != nil || version < 30000 {
		t.Fatalf("version %d, %v", version, err)
	}
	features, err := c.FeatureCheck(&gorpc.CriuFeatures{MemTrack: new(true), LazyPages: new(true)})
	if err != nil || features.MemTrack == nil || features.LazyPages == nil {
		t.Errorf("features %v, %v", features, err)
	}
	v := testkit.StartVictim(t, "counter")
	base := t.TempDir()
	parent := (*string)(nil)
	for n := range 2 {
		name := strconv.Itoa(n)
		if err := os.Mkdir(filepath.Join(base, name), 0o700); err != nil {
			t.Fatal(err)
		}
		round := openDir(t, filepath.Join(base, name))
		noted := &noter{}
		err := c.PreDump(&gorpc.CriuOpts{Pid: new(int32(v.Pid)), ImagesDirFd: new(int32(round.Fd())), TrackMem: new(true), ParentImg: parent}, noted)
		switch {
		case roundsOf(transport) == "refused" && (err == nil || !strings.Contains(err.Error(), "PRE_DUMP")):
			t.Errorf("a pre-dump by the built-in engine: %v, want a refusal by name", err)
		case roundsOf(transport) == "done" && (err != nil || !noted.preDumped):
			t.Errorf("round %d: %v, %+v", n, err, noted)
		case roundsOf(transport) == "done":
			parent = new("../" + name)
		}
	}
	if err := os.Mkdir(filepath.Join(base, "last"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := openDir(t, filepath.Join(base, "last"))
	opts := &gorpc.CriuOpts{Pid: new(int32(v.Pid)), ImagesDirFd: new(int32(dir.Fd())), LogFile: new("dump.log"), ParentImg: parent, TrackMem: new(parent != nil)}
	noted := &noter{}
	if err := c.Dump(opts, noted); err != nil {
		t.Fatal(err)
	}
	if !noted.dumped {
		t.Error("no notification came")
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	// As a child of this process, which is the client.
	if err := c.Restore(&gorpc.CriuOpts{ImagesDirFd: new(int32(dir.Fd())), LogFile: new("restore.log"), RstSibling: new(true)}, noted); err != nil {
		t.Fatal(err)
	}
	if noted.restored != int32(v.Pid) {
		t.Errorf("restored as %d, want %d", noted.restored, v.Pid)
	}
	v.Restored()
	if got := parentOf(t, v.Pid); got != os.Getpid() {
		t.Errorf("its parent is %d, not this process, %d", got, os.Getpid())
	}
	if transport == builtin {
		// This client's peer is its own child, and in its tree.
		err := c.Dump(&gorpc.CriuOpts{ImagesDirFd: new(int32(openDir(t, t.TempDir()).Fd()))}, nil)
		if err == nil || !strings.Contains(err.Error(), "in its tree") {
			t.Errorf("its own dump: %v", err)
		}
	}
	v.MustVerify()
}

// parentOf is the pid of a process's parent.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	parent, err := strconv.Atoi(strings.Fields(rest)[1]) // after the state
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

type noter struct {
	gocriu.NoNotify
	preDumped, dumped bool
	restored          int32
}

func (n *noter) PreDump() error              { n.preDumped = true; return nil }
func (n *noter) PostDump() error             { n.dumped = true; return nil }
func (n *noter) PostRestore(pid int32) error { n.restored = pid; return nil }

// A process of root's that asks the service to dump itself is dumped, by a CRIU on its own connection; the connection
// tells the restored copy that it is one.
func TestSelfDumpThroughService(t *testing.T) { eachEngine(t, selfDumpThroughService) }

func selfDumpThroughService(t *testing.T, transport string) {
	testkit.Need(t, testkit.NoRaceDetector)
	s := startServer(t, transport, "")
	resp := s.mustAsk(attack{Type: rpc.ReqDump, Images: testkit.SharedDir(t), Opts: map[string]any{
		"LeaveRunning": true, "LogFile": "dump.log", "LogLevel": 4, "ShellJob": true, "ExtUnixSk": true, "FileLocks": true}}, 0)
	t.Logf("success %v, %s", resp.Success, text(resp))
	if !resp.Success || resp.Dump == nil || resp.Dump.Restored == nil || *resp.Dump.Restored {
		t.Errorf("answered success %v, dump %+v: %s", resp.Success, resp.Dump, text(resp))
	}
}

// Somebody who is not root is told why that cannot be.
func TestSelfDumpOfUser(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	s := startServer(t, testkit.CRIUPath(t), "")
	resp := s.mustAsk(attack{Type: rpc.ReqDump, Images: testkit.UserDir(t, mallory)}, mallory)
	if resp.Success || text(resp) == "" {
		t.Errorf("answered %+v", resp)
	}
	t.Log(text(resp))
}

// Somebody who is not root has a process of their own dumped and restored, with its pid.
func TestUserDumpsAndRestores(t *testing.T) { eachEngine(t, userDumpsAndRestores) }

func userDumpsAndRestores(t *testing.T, transport string) {
	s := startServer(t, transport, "")
	images, v := testkit.UserDir(t, mallory), restorableVictim(t, mallory)
	if resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(v.Pid), Images: images, Notify: true}, mallory); !resp.Success {
		t.Fatal(text(resp))
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	resp := s.mustAsk(attack{Type: rpc.ReqRestore, Images: images}, mallory)
	if !resp.Success || int(resp.Restore.PID) != v.Pid {
		t.Fatalf("restore: %+v, %s", resp.Restore, text(resp))
	}
	v.Restored()
	st, err := readStatus(v.Pid, v.Pid)
	if err != nil || st.uids[0] != mallory || st.capPermitted != 0 {
		t.Errorf("restored with %+v, %v", st, err)
	}
	v.MustVerify()
}

// The check after the freeze rests on this: in every dump there is at least one notification while the tree is frozen.
func TestWhenTheTreeIsFrozen(t *testing.T) { eachEngine(t, whenTheTreeIsFrozen) }

func whenTheTreeIsFrozen(t *testing.T, transport string) {
	v := testkit.StartVictim(t, "counter")
	seen := make(map[string]string)
	_, err := criu.New(swrkOf(transport)).Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: t.TempDir(), LeaveRunning: true,
		Notify: func(_ context.Context, e *criu.Event) error {
			seen[e.Name] = v.State()
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(seen)
	frozen := false
	for name, state := range seen {
		if !frozenAt(&rpc.Notify{Script: &name}) {
			continue
		}
		if state != "t" {
			t.Errorf("at %s the tree is in state %q", name, state)
		}
		// A look after the tree was written comes too late for what is in the images, though not for the answer.
		frozen = frozen || name != "post-dump"
	}
	if !frozen {
		t.Error("there was no notification while the tree was frozen and not yet written")
	}
}

// Somebody who is not root gets answers of the built-in engine's about what there is. CRIU has only root check.
func TestUserAsks(t *testing.T) {
	testkit.Need(t, testkit.Root)
	s := startServer(t, builtin, "")
	for _, typ := range []rpc.ReqType{rpc.ReqVersion, rpc.ReqCheck, rpc.ReqFeatureCheck} {
		resp := s.mustAsk(attack{Type: typ}, mallory)
		if !resp.Success {
			t.Errorf("%v: %s", typ, text(resp))
		}
	}
}

// A restore as the client's child that fails leaves the client no child, not even one that has ended.
func TestRestoreChildThatFails(t *testing.T) { eachEngine(t, restoreChildThatFails) }

func restoreChildThatFails(t *testing.T, transport string) {
	v, dir := victimOf(t, 0), t.TempDir()
	client := criu.New(swrkOf(transport))
	if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	criutest.NoLeaks(t)
	for _, stage := range []string{"pre-restore", "post-restore", "post-restore"} {
		_, err := client.RestoreChild(t.Context(), criu.RestoreOptions{ImagesDir: dir, Notify: func(_ context.Context, e *criu.Event) error {
			if e.Name == stage {
				return errors.New("not today")
			}
			return nil
		}})
		if !errors.Is(err, criu.ErrRefused) {
			t.Errorf("refused at %s: %v", stage, err)
		}
	}
}
