package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
	"stasis.example/internal/testkit"
)

// Each rule has an attack, made by a process of another user's. With the rule it fails; without, it succeeds: else it
// would show nothing about the rule.
func eachWay(t *testing.T, rule string, attack func(t *testing.T, off string) (succeeded bool, detail string)) {
	t.Helper()
	eachWayWithout(t, "", rule, attack)
}

// eachWayWithout is eachWay where other rules, which would keep the attack from succeeding as well, are off both times.
func eachWayWithout(t *testing.T, others, rule string, attack func(t *testing.T, off string) (succeeded bool, detail string)) {
	t.Helper()
	testkit.Need(t, testkit.Root)
	for name, off := range map[string]string{"with the rule": others, "without the rule": rule + "," + others} {
		t.Run(name, func(t *testing.T) {
			succeeded, detail := attack(t, off)
			if succeeded != (off != others) {
				t.Errorf("the attack succeeded: %v; %s", succeeded, detail)
			}
		})
	}
}

// yes is a peer that does whatever it is asked, behind a socket that everyone may connect to.
func yes(t *testing.T, scripts ...criutest.Script) (*criutest.Peer, string) {
	t.Helper()
	if len(scripts) == 0 {
		scripts = []criutest.Script{{criutest.Serve()}}
	}
	p := criutest.NewPeer(t, scripts...)
	path := p.Service().Path
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return p, "socket:" + path
}

// reached says whether a request got through to the peer.
func reached(p *criutest.Peer, t rpc.ReqType) bool {
	for _, req := range p.Requests() {
		if req.Type == t {
			return true
		}
	}
	return false
}

// secretOf is a file that only its owner can read or write.
func secretOf(t *testing.T, uid int) string {
	t.Helper()
	path := filepath.Join(testkit.UserDir(t, uid), "secret")
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
	return path
}

// The log goes where a symbolic link of the attacker's leads, which root could write to.
func TestAttackLogThroughSymlink(t *testing.T) {
	testkit.Need(t, testkit.CRIU)
	eachWay(t, "become", func(t *testing.T, off string) (bool, string) {
		s := startServer(t, testkit.CRIUPath(t), off)
		secret, images := secretOf(t, victor), testkit.UserDir(t, mallory)
		if err := os.Symlink(secret, filepath.Join(images, "dump.log")); err != nil {
			t.Fatal(err)
		}
		resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(victimOf(t, mallory).Pid), Images: images,
			Opts: map[string]any{"LogFile": "dump.log", "LeaveRunning": true}}, mallory)
		content, err := os.ReadFile(secret)
		return err != nil || string(content) != "secret", text(resp)
	})
}

// The built-in engine does not follow symbolic links in the directory of images, whoever it works for: neither those that it
// would write through, nor those that it would read.
func TestSymlinksInImages(t *testing.T) {
	testkit.Need(t, testkit.Root)
	s := startServer(t, builtin, "become")
	for _, name := range []string{"dump.log", "inventory.img", "pages-1.img"} {
		secret, images := secretOf(t, victor), testkit.UserDir(t, mallory)
		if err := os.Symlink(secret, filepath.Join(images, name)); err != nil {
			t.Fatal(err)
		}
		resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(victimOf(t, mallory).Pid), Images: images,
			Opts: map[string]any{"LogFile": "dump.log", "LeaveRunning": true}}, mallory)
		if content, err := os.ReadFile(secret); err != nil || string(content) != "secret" {
			t.Errorf("%s: the secret is %q, %v; the dump: %v %s", name, content, err, resp.Success, text(resp))
		}
	}
	for _, name := range []string{"inventory.img", "pstree.img", "pages-1.img"} {
		images := testkit.UserDir(t, mallory)
		v := restorableVictim(t, mallory)
		if resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(v.Pid), Images: images}, mallory); !resp.Success {
			t.Fatal(text(resp))
		}
		if _, err := v.Wait(); err != nil {
			t.Fatal(err)
		}
		elsewhere := filepath.Join(testkit.SharedDir(t), name)
		if err := os.Rename(filepath.Join(images, name), elsewhere); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(elsewhere, filepath.Join(images, name)); err != nil {
			t.Fatal(err)
		}
		resp := s.mustAsk(attack{Type: rpc.ReqRestore, Images: images}, mallory)
		if resp.Success || !strings.Contains(text(resp), name) {
			t.Errorf("%s is a link: restored %v, %s", name, resp.Success, text(resp))
		}
	}
}

// Somebody else's process is dumped, and its memory read from the images. It takes both rules to be off: the kernel
// says no, too.
func TestAttackForeignProcess(t *testing.T) { eachEngine(t, attackForeignProcess) }

func attackForeignProcess(t *testing.T, transport string) {
	eachWay(t, "ownTree,afterFreeze,become", func(t *testing.T, off string) (bool, string) {
		s := startServer(t, transport, off)
		images := testkit.UserDir(t, mallory)
		resp := s.mustAsk(attack{Type: rpc.ReqDump, PID: int32(victimOf(t, victor).Pid), Images: images,
			Opts: map[string]any{"LeaveRunning": true, "LogFile": "dump.log", "LogLevel": 4}}, mallory)
		log, _ := os.ReadFile(filepath.Join(images, "dump.log"))
		// Root without CAP_SYS_RESOURCE gets as far as the memory, and no further.
		pages, err := os.Stat(filepath.Join(images, "pages-1.img"))
		return err == nil && pages.Size() > 0, fmt.Sprintf("%s\n%s", text(resp), tail(string(log), 1500))
	})
}

func tail(text string, most int) string { return text[max(0, len(text)-most):] }

// Every option that is root's alone is refused to somebody who is not, one by one, and gets through without the rule.
func TestAttackOptionsOfRoot(t *testing.T) {
	values := map[string]any{
		"PS": rpc.PageServerInfo{Port: new(int32(1))}, "Veths": []rpc.VethPair{{IfIn: "a", IfOut: "b"}},
		"ExtMnt": []rpc.ExtMountMap{{Key: "/a", Val: "/b"}}, "CgRoot": []rpc.CgroupRoot{{Path: "/a"}},
		"JoinNS": []rpc.JoinNamespace{{NS: "net", NSFile: "1"}}, "InheritFD": []rpc.InheritFD{{Key: "pipe[1]", FD: 0}},
		"StatusFD": 0, "PidfdStoreSk": 0,
	}
	eachWay(t, "table", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		s := startServer(t, peer, off)
		allowed, refused := []string(nil), []string(nil)
		kind := reflect.TypeFor[rpc.Opts]()
		for i, row := range rpctable.Options() {
			if row.Who == rpctable.Anyone {
				continue
			}
			field := kind.Field(i)
			value, ok := values[field.Name]
			if !ok {
				value = harmful(t, field.Type, row)
			}
			// A check has nothing that could be refused for another reason.
			resp := s.mustAsk(attack{Type: rpc.ReqCheck, Opts: map[string]any{field.Name: value}}, mallory)
			if resp.Success {
				allowed = append(allowed, row.Name)
				continue
			}
			refused = append(refused, row.Name)
			if off == "" && !strings.Contains(text(resp), row.Name) {
				t.Errorf("%s is refused without being named: %s", row.Name, text(resp))
			}
		}
		_ = p
		if len(allowed) > 0 && len(refused) > 0 {
			t.Errorf("some got through (%v), some did not (%v)", allowed, refused)
		}
		return len(allowed) > 0, fmt.Sprint("refused ", refused)
	})
}

// harmful is a value other than what the option's absence means.
func harmful(t *testing.T, typ reflect.Type, row rpctable.Field) any {
	t.Helper()
	switch {
	case row.Card == rpctable.Repeated:
		return []string{"x"}
	case row.Kind == rpctable.Bool:
		return true
	case row.Kind == rpctable.String:
		return "x"
	case row.Kind == rpctable.Enum, row.Kind == rpctable.Uint32:
		return 2
	}
	t.Fatalf("no value for %s, a %v", row.Name, typ)
	return nil
}

// The table's rows and the fields of rpc.Opts are the same in the same order, which checkOptions rests on.
func TestOptionsAreTheTables(t *testing.T) {
	kind := reflect.TypeFor[rpc.Opts]()
	rows := rpctable.Options()
	if kind.NumField() != len(rows)+1 || kind.Field(len(rows)).Name != "Unknown" {
		t.Fatalf("rpc.Opts has %d fields, the table %d rows", kind.NumField(), len(rows))
	}
	for i, row := range rows {
		if got, want := strings.ToLower(kind.Field(i).Name), strings.ReplaceAll(row.Name, "_", ""); got != want {
			t.Errorf("field %d is %s, row %d is %s", i, got, i, want)
		}
		if row.Who == 0 {
			t.Errorf("%s: nobody has decided who may set it", row.Name)
		}
	}
}

// uid 0 in a namespace of its own is nobody here.
func TestAttackRootElsewhere(t *testing.T) {
	testkit.Need(t, testkit.Program("unshare"))
	eachWay(t, "rootIsRoot", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		s := startServer(t, peer, off)
		a := s.clientCommand(attack{Type: rpc.ReqCheck, Opts: map[string]any{"ConfigFile": "/tmp/x"}}, 0)
		cmd := testkit.InNamespaces(t.Context(), t, testProgram(t), a.Args[1:]...)
		resp := answerTo(t, cmd)
		return resp.Success && reached(p, rpc.ReqCheck), text(resp)
	})
}

// A pid is what it is to the client: pid 1 of a container is not the machine's.
func TestAttackPIDOfAnotherNamespace(t *testing.T) {
	testkit.Need(t, testkit.Program("unshare"), testkit.Program("setpriv"))
	eachWay(t, "translate", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		// Who owns the tree is not the question here.
		s := startServer(t, peer, strings.TrimPrefix(off+",ownTree,afterFreeze", ","))
		a := s.clientCommand(attack{Type: rpc.ReqDump, PID: 1, Images: testkit.UserDir(t, mallory)}, 0)
		user := strconv.Itoa(mallory)
		args := append([]string{"--reuid", user, "--regid", user, "--clear-groups", "--", "/bin/sh", "-c", `"$0" "$@"; exit`, testProgram(t)}, a.Args[1:]...)
		cmd := testkit.InNamespaces(t.Context(), t, "setpriv", args...)
		resp := answerTo(t, cmd)
		for _, req := range p.Requests() {
			if req.Type == rpc.ReqDump && *req.Opts.PID == 1 {
				return true, "pid 1 reached the peer"
			}
		}
		return false, text(resp)
	})
}

// A client ends before the service looks at it, and another process gets its pid: a descriptor of that one's is not the client's to
// give. The other rules do not let it come that far.
func TestAttackReusedPID(t *testing.T) {
	eachWayWithout(t, "takeFiles,become,ownTree,afterFreeze", "peerPIDFD", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		s := startServer(t, peer, off, func(s *Server) { s.MaxWorkers = 1 })
		// The service does not look at the attacker's connection while it has another.
		held, err := (&criu.Service{Path: s.socket}).Open(t.Context(), criu.Call{})
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Send(t.Context(), &rpc.Req{Type: rpc.ReqVersion, KeepOpen: new(true)}); err != nil {
			t.Fatal(err)
		}
		if _, err := held.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn, client := connectAndStay(t, s.socket)
		pid := client.end()
		number := takePID(t, pid, testkit.SharedDir(t))
		held.Close()
		return dumpIntoNumber(t, p, conn, number)
	})
}

// A client ends when it is known already, and another process gets its pid.
func TestAttackNumberOfAnothers(t *testing.T) {
	eachWayWithout(t, "become,ownTree,afterFreeze", "takeFiles", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		s := startServer(t, peer, off)
		conn, client := connectAndStay(t, s.socket)
		send(t, conn, (&rpc.Req{Type: rpc.ReqVersion, KeepOpen: new(true)}).Append(nil))
		if resp, err := answer(t, conn); err != nil || !resp.Success {
			t.Fatalf("%+v, %v", resp, err)
		}
		number := takePID(t, client.end(), testkit.SharedDir(t))
		return dumpIntoNumber(t, p, conn, number)
	})
}

// dumpIntoNumber asks on a connection for a dump into the directory with a number, and reports whether that got through to the peer.
func dumpIntoNumber(t *testing.T, p *criutest.Peer, conn, number int) (bool, string) {
	t.Helper()
	target := victimOf(t, victor)
	req := &rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{ImagesDirFD: int32(number), PID: new(int32(target.Pid))}}
	if err := unix.Send(conn, req.Append(nil), unix.MSG_NOSIGNAL); err != nil {
		return false, err.Error()
	}
	resp, err := answer(t, conn)
	if err != nil {
		return false, err.Error()
	}
	return resp.Success && reached(p, rpc.ReqDump), text(resp)
}

// A connected process of the attacker's has connected a socket that is the test's as well, and stays until it is told to go.
type connected struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
}

// end ends the process and returns the pid that it had.
func (c *connected) end() int {
	c.t.Helper()
	c.in.Close()
	if err := c.cmd.Wait(); err != nil && !errors.Is(err, unix.ECHILD) {
		c.t.Fatal(err)
	}
	return c.cmd.Process.Pid
}

// connectAndStay returns a connection to the service that a process of the attacker's has made, and that process.
func connectAndStay(t *testing.T, socket string) (conn int, client *connected) {
	t.Helper()
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(conn) })
	shared, err := unix.FcntlInt(uintptr(conn), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(shared), "socket")
	defer f.Close()
	cmd := as(exec.Command("/proc/self/exe", wordConnect, socket), mallory)
	cmd.ExtraFiles, cmd.Dir = []*os.File{f}, "/"
	in := startHeld(t, cmd)
	return conn, &connected{t, cmd, in}
}

// takePID starts a process of root's with a pid that was another's, and returns the number that the directory has there.
func takePID(t *testing.T, pid int, dir string) (number int) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 1000 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.ExtraFiles = []*os.File{f}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if cmd.Process.Pid == pid {
			testkit.OpenProcess(t, pid)
			return 3
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Fatalf("no process got the pid %d", pid)
	return 0
}

// The log has a name in the directory, not one that leads out of it.
func TestAttackLogOutside(t *testing.T) {
	eachWay(t, "logFile", func(t *testing.T, off string) (bool, string) {
		p, peer := yes(t)
		s := startServer(t, peer, off)
		resp := s.mustAsk(attack{Type: rpc.ReqCheck, Images: testkit.UserDir(t, mallory), Opts: map[string]any{"LogFile": "../../etc/x"}}, mallory)
		return resp.Success && reached(p, rpc.ReqCheck), text(resp)
	})
}

// testProgram is the path of a copy of this program that everyone may run.
func testProgram(t testing.TB) string {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testkit.SharedDir(t), "program")
	if err := testkit.WriteProgram(path, program); err != nil {
		t.Fatal(err)
	}
	return path
}
