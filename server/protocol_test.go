package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// A client that says nothing is told so when its time is up, and the conversation ends. It may say nothing for as long as it likes
// once it has asked something.
func TestTimeToFirstRequest(t *testing.T) {
	testkit.Need(t, testkit.Root)
	for _, asks := range []bool{false, true} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		o := testOptions(builtin)
		o.FirstRequest = 50 * time.Millisecond
		o.setDefaults()
		own, err := lookAtSelf()
		if err != nil {
			t.Fatal(err)
		}
		c, err := identify(pair[1], allRules(), own)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		ended := make(chan error, 1)
		go func() {
			front := newPackets(pair[1])
			defer front.close()
			_, err := converse(context.Background(), front, c, o)
			ended <- err
		}()
		if !asks {
			if resp, err := answer(t, pair[0]); err != nil || resp.Success || resp.CrErrno == nil || *resp.CrErrno != int32(unix.ETIMEDOUT) {
				t.Errorf("answered %+v, %v", resp, err)
			}
			if err := <-ended; err == nil {
				t.Error("the conversation ended without an error")
			}
			continue
		}
		version := (&rpc.Req{Type: rpc.ReqVersion, KeepOpen: new(true)}).Append(nil)
		for range 2 {
			send(t, pair[0], version)
			if resp, err := answer(t, pair[0]); err != nil || !resp.Success {
				t.Errorf("answered %+v, %v", resp, err)
			}
			select {
			case err := <-ended:
				t.Errorf("the conversation has ended: %v", err)
			case <-time.After(2 * o.FirstRequest): // the time that is not to matter
			}
		}
		unix.Shutdown(pair[0], unix.SHUT_RDWR)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// As with CRIU, keep_open makes no difference to PRE_DUMP: a round that was done is followed by another or by the dump, on the same
// conversation; one that was not is answered, and was the last thing said.
func TestPreDumpWithKeepOpen(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	_, scripted := yes(t)
	for name, transport := range map[string]string{"builtin": builtin, "done": scripted} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, transport, "")
			v := testkit.StartVictim(t, "counter")
			opts := &rpc.Opts{ImagesDirFD: int32(openDir(t, t.TempDir()).Fd()), PID: new(int32(v.Pid)), LeaveRunning: new(true)}
			fd := dial(t, s)
			defer unix.Close(fd)
			ask := func(typ rpc.ReqType) *rpc.Resp {
				t.Helper()
				send(t, fd, (&rpc.Req{Type: typ, Opts: opts, KeepOpen: new(typ == rpc.ReqPreDump)}).Append(nil))
				resp, err := answer(t, fd)
				if err != nil || resp.Type != typ {
					t.Fatalf("%v: %+v, %v", typ, resp, err)
				}
				return resp
			}
			if transport == builtin {
				if resp := ask(rpc.ReqPreDump); resp.Success || *resp.CrErrno != int32(unix.ENOTSUP) || !strings.Contains(text(resp), "PRE_DUMP") {
					t.Errorf("answered %+v, %s", resp, text(resp))
				}
			} else {
				for _, typ := range []rpc.ReqType{rpc.ReqPreDump, rpc.ReqPreDump, rpc.ReqDump} {
					if resp := ask(typ); !resp.Success {
						t.Errorf("%v: %s", typ, text(resp))
					}
				}
			}
			if resp, err := answer(t, fd); err == nil {
				t.Errorf("there was more: %+v", resp)
			}
			v.MustVerify()
		})
	}
}

// Rounds of pre-dump that end in a dump, by a real CRIU behind the service.
func TestRoundsThroughService(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.SoftDirty, testkit.VictimProgram("counter"))
	s := startServer(t, testkit.CRIUPath(t), "")
	v, dir := testkit.StartVictim(t, "counter"), t.TempDir()
	client := criu.New(&criu.Service{Path: s.socket})
	result, err := client.DumpIterative(t.Context(), criu.IterativeOptions{
		Dump: criu.DumpOptions{PID: v.Pid, ImagesDir: dir},
		More: func(_ context.Context, r criu.Round) (bool, error) { return r.N < 3, nil },
	})
	if err != nil || result.Rounds != 3 {
		t.Fatalf("%+v, %v", result, err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: filepath.Join(dir, result.Dir)}); err != nil {
		t.Fatal(err)
	}
	v.Restored()
	v.MustVerify()
}

// A page server takes the pages of a dump, and ends with it. One that is the peer's child is waited for; of the other CRIU does not tell
// the pid.
func TestPageServers(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	for _, child := range []bool{true, false} {
		s := startServer(t, testkit.CRIUPath(t), "")
		client := criu.New(&criu.Service{Path: s.socket})
		v, dir := testkit.StartVictim(t, "counter"), t.TempDir()
		start := client.PageServer
		if child {
			start = client.PageServerChild
		}
		ps, err := start(t.Context(), criu.PageServerOptions{ImagesDir: dir, LogFile: "ps.log", PageServer: &criu.PageServerAddr{Address: "127.0.0.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer ps.Close()
		if ps.Port == 0 {
			t.Fatalf("it does not say its port: %+v", ps)
		}
		if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir,
			PageServer: &criu.PageServerAddr{Address: "127.0.0.1", Port: ps.Port}}); err != nil {
			t.Fatal(err)
		}
		if child {
			if status, err := ps.Wait(t.Context()); err != nil || !status.Success() {
				t.Errorf("its end: %v, %v", status, err)
			}
		}
		if _, err := v.Wait(); err != nil {
			t.Fatal(err)
		}
		if pages, err := filepath.Glob(filepath.Join(dir, "pages-*.img")); err != nil || len(pages) == 0 {
			t.Errorf("no pages came: %v", err)
		}
		if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir}); err != nil {
			t.Fatal(err)
		}
		v.Restored()
		v.MustVerify()
	}
}

// The master that CRIU makes for a terminal without one comes with its notification.
func TestOrphanPTSMasterThroughService(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	s := startServer(t, testkit.CRIUPath(t), "")
	client := criu.New(&criu.Service{Path: s.socket})
	master, slave := testkit.OpenPTY(t)
	v := testkit.VictimSpec{Name: "/bin/sh", Args: []string{"-c", `echo ready >>"$VICTIM_OUTPUT"; while read line; do echo "got $line"; done`},
		Stdin: slave, Stdout: slave, Stderr: slave, SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true}}.Start(t)
	slave.Close()
	dir := t.TempDir()
	if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, ShellJob: true, OrphanPTSMaster: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	master.Close() // the terminal's number is needed again
	var restored *os.File
	if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir, ShellJob: true, OrphanPTSMaster: true,
		Notify: func(_ context.Context, e *criu.Event) error {
			if e.Name == "orphan-pts-master" {
				restored = e.TakeFile()
			}
			return nil
		}}); err != nil {
		t.Fatal(err)
	}
	v.Restored()
	if restored == nil {
		t.Fatal("no master came")
	}
	defer restored.Close()
	if _, err := restored.WriteString("word\n"); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, 0, 100)
	for !strings.Contains(string(heard), "got word") { // what hangs ends with the test's own time
		n, err := restored.Read(heard[len(heard):cap(heard)])
		if err != nil || n == 0 {
			t.Fatalf("heard %q, %v", heard, err)
		}
		heard = heard[:len(heard)+n]
	}
}
