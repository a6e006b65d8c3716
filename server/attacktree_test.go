package server

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// mixedTree starts a process of the attacker's, one child of which runs with another user's rights.
func mixedTree(t *testing.T, uid uint32) *testkit.Victim {
	t.Helper()
	return testkit.VictimSpec{Name: testkit.BusyboxPath, UID: int(uid),
		Args: []string{"sh", "-c", setuidSleep(t, victor) + " 1000 & echo ready; wait"}}.Start(t)
}

// The tree's root is the attacker's, but below it is somebody else's. The rule after the freeze alone would find that, too.
func TestAttackForeignChild(t *testing.T) {
	testkit.Need(t, testkit.Busybox)
	eachWayWithout(t, "afterFreeze", "ownTree", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		s := startServer(t, peer, off)
		root := mixedTree(t, mallory)
		testkit.WaitFor(t, "the child to become another user's", func() bool {
			children, err := childrenOf(root.Pid, root.Pid)
			if err != nil || len(children) != 1 {
				return false
			}
			st, err := readStatus(children[0], children[0])
			return err == nil && st.uids[1] == victor
		})
		resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(root.Pid), Images: testkit.UserDir(t, mallory)}, mallory)
		return resp.Success && reached(p, rpc.ReqDump), text(resp)
	})
}

// The tree has the attacker's uid, and yet more in it than is the attacker's.
func TestAttackTreeWithMore(t *testing.T) {
	testkit.Need(t, testkit.Python, testkit.Busybox, testkit.Program("setpriv"))
	user := strconv.Itoa(mallory)
	// Raw system calls, which change the one thread that makes them.
	const python = `
import ctypes, sys, threading
c = ctypes.CDLL(None, use_errno=True)
def must(n):
    if n != 0: sys.exit("errno %d" % ctypes.get_errno())
SETRESUID, SETRESGID, SETGROUPS, PRCTL, DUMPABLE = 117, 119, 116, 157, 4
def become(uid):
    must(c.syscall(SETGROUPS, 0, None)); must(c.syscall(SETRESGID, uid, uid, uid)); must(c.syscall(SETRESUID, uid, uid, uid))
def ready():
    must(c.syscall(PRCTL, DUMPABLE, int(sys.argv[3]), 0, 0, 0))
    print("ready", flush=True)
    threading.Event().wait()
mine, others = int(sys.argv[1]), int(sys.argv[2])
if others:
    done = threading.Event()
    def thread():
        become(others); done.set(); threading.Event().wait()
    threading.Thread(target=thread, daemon=True).start()
    done.wait()
become(mine)
ready()
`
	for _, tc := range []struct {
		name string
		spec func(t *testing.T) testkit.VictimSpec
	}{
		{"another user's thread", func(*testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: testkit.PythonPath, Args: []string{"-c", python, user, strconv.Itoa(victor), "1"}}
		}},
		{"what cannot be dumped", func(*testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: testkit.PythonPath, Args: []string{"-c", python, user, "0", "0"}}
		}},
		{"a group", func(*testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: "/usr/bin/setpriv", Args: []string{"--reuid", user, "--regid", user, "--groups", strconv.Itoa(victor), "--",
				testkit.BusyboxPath, "sh", "-c", "sleep 1000 & echo ready; wait"}}
		}},
		{"a program of another group", func(t *testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: marked(t, func(path string) error {
				return errors.Join(os.Chown(path, 0, victor), os.Chmod(path, 0o755|os.ModeSetgid))
			}), Args: []string{"sh", "-c", "sleep 1000 & echo ready; wait"}, UID: mallory}
		}},
		{"a program with capabilities", func(t *testing.T) testkit.VictimSpec {
			return testkit.VictimSpec{Name: marked(t, func(path string) error {
				// Version 2, permitted CAP_NET_BIND_SERVICE, which the program does not get by itself.
				return unix.Setxattr(path, "security.capability", []byte{0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0)
			}), Args: []string{"sh", "-c", "sleep 1000 & echo ready; wait"}, UID: mallory}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachWay(t, "ownTree,afterFreeze", func(t *testing.T, off string) (bool, string) {
				p, peer := yes(t)
				s := startServer(t, peer, off)
				v := tc.spec(t).Start(t)
				resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(v.Pid), Images: testkit.UserDir(t, mallory)}, mallory)
				return resp.Success && reached(p, rpc.ReqDump), text(resp)
			})
		})
	}
}

// marked is a copy of busybox that something was done to.
func marked(t *testing.T, mark func(path string) error) string {
	t.Helper()
	program, err := os.ReadFile(testkit.BusyboxPath)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testkit.SharedDir(t), "busybox")
	if err := testkit.WriteProgram(path, program); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o755), mark(path)); err != nil {
		t.Fatal(err)
	}
	return path
}

// The tree becomes somebody else's between the check and the freeze.
func TestAttackTreeThatChanges(t *testing.T) {
	eachWay(t, "afterFreeze", func(t *testing.T, off string) (bool, string) {
		change, changed := make(chan bool), make(chan bool)
		_, peer := yes(t, criutest.Script{criutest.Func(func(c *criutest.Conn) error {
			req, err := c.Recv()
			if err != nil {
				return err
			}
			change <- true
			<-changed
			goOn := true
			if n := req.Opts.NotifyScripts; n != nil && *n {
				if goOn, err = c.Notify("network-lock", 0); err != nil {
					return err
				}
			}
			return c.Send(&rpc.Resp{Type: rpc.ReqDump, Success: goOn})
		})})
		s := startServer(t, peer, off)
		target := as(exec.Command("/bin/sh", "-c", "read go; exec "+setuidSleep(t, victor)+" 1000"), mallory)
		in, err := target.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := target.Start(); err != nil {
			t.Fatal(err)
		}
		testkit.OpenProcess(t, target.Process.Pid)
		type answer struct {
			resp *rpc.Resp
			err  error
		}
		answered := make(chan answer, 1)
		images := testkit.UserDir(t, mallory)
		go func() {
			resp, err := s.ask(attack{Type: rpc.ReqDump, PID: int32(target.Process.Pid), Images: images}, mallory)
			answered <- answer{resp, err}
		}()
		select {
		case <-change:
		case a := <-answered:
			t.Fatalf("answered before the peer was asked: %+v", a)
		}
		if _, err := in.Write([]byte("go\n")); err != nil {
			t.Fatal(err)
		}
		testkit.WaitFor(t, "the target to become another user's", func() bool {
			st, err := readStatus(target.Process.Pid, target.Process.Pid)
			return err == nil && st.uids[1] == victor
		})
		changed <- true
		a := <-answered
		if a.err != nil {
			t.Fatal(a.err)
		}
		return a.resp.Success, text(a.resp)
	})
}

// setuidSleep is a program that sleeps with the rights of a user.
func setuidSleep(t *testing.T, uid int) string {
	t.Helper()
	path := filepath.Join(testkit.SharedDir(t), "sleep")
	program, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := testkit.WriteProgram(path, program); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	return path
}
