package server

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// CRIU's own C library, as a program that loads it would use it.
const libcriuClient = `
import ctypes, os, sys
lib, socket, images, pid = sys.argv[1], sys.argv[2].encode(), sys.argv[3], int(sys.argv[4])
c = ctypes.CDLL(lib)
def expect(what, got, want):
    if got != want:
        sys.exit("%s: %d, want %d" % (what, got, want))
expect("init", c.criu_init_opts(), 0)
c.criu_set_service_address(socket)
expect("check", c.criu_check(), 0)
if c.criu_get_version() < 30000:
    sys.exit("version")
class Features(ctypes.Structure):
    _fields_ = [("mem_track", ctypes.c_bool), ("lazy_pages", ctypes.c_bool), ("pidfd_store", ctypes.c_bool)]
f = Features(True, True, True)
expect("feature check", c.criu_feature_check(ctypes.byref(f), ctypes.sizeof(f)), 0)
if f.pidfd_store != (sys.argv[5] == "true"):
    sys.exit("pidfd_store: %r" % f.pidfd_store)
notes = []
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def notify(action, arg):
    notes.append(action)
    return 0
fd = os.open(images, os.O_RDONLY | os.O_DIRECTORY)
c.criu_set_images_dir_fd(fd)
c.criu_set_log_file(b"libcriu.log")
c.criu_set_log_level(4)
c.criu_set_notify_cb(notify)
c.criu_set_pid(pid)
c.criu_set_leave_running(True)
expect("dump that leaves it running", c.criu_dump(), 0)
c.criu_set_leave_running(False)
rounds = sys.argv[6]
if rounds == "done":
    for n in "12":
        os.mkdir(images + "/" + n)
        c.criu_set_images_dir_fd(os.open(images + "/" + n, os.O_RDONLY | os.O_DIRECTORY))
        c.criu_set_track_mem(True)
        expect("round " + n, c.criu_pre_dump(), 0)
        c.criu_set_parent_images(b"../" + n.encode())
    os.mkdir(images + "/last")
    fd = os.open(images + "/last", os.O_RDONLY | os.O_DIRECTORY)
    c.criu_set_images_dir_fd(fd)
elif rounds == "refused":
    expect("pre-dump", c.criu_pre_dump(), -52) # EBADE: the peer says no
expect("dump", c.criu_dump(), 0)
if b"post-dump" not in notes:
    sys.exit("notifications: %r" % notes)
print("dumped", flush=True)
sys.stdin.readline()
expect("restore", c.criu_restore(), pid)
expect("dump of nobody", (c.criu_set_pid(4194303), c.criu_dump())[1], -52)
`

// ownLibrary is the C library of this project.
func ownLibrary(t testing.TB) string {
	t.Helper()
	path := filepath.Join(testkit.SourceRoot(), "bin", "libcriu.so.2")
	testkit.Need(t, testkit.Feature("bin/libcriu.so.2", func() error {
		if _, err := os.Stat(path); err != nil {
			return testkit.Missing("make build has not made it")
		}
		return nil
	}))
	return path
}

// A C program has a process restored as its own child, by a swrk child that its library starts.
const libcriuChild = `
import ctypes, os, sys
lib, program, images, pid = sys.argv[1], sys.argv[2].encode(), sys.argv[3], int(sys.argv[4])
c = ctypes.CDLL(lib)
if c.criu_init_opts() != 0:
    sys.exit("init")
c.criu_set_service_binary(program)
if c.criu_get_version() < 30000:
    sys.exit("version")
fd = os.open(images, os.O_RDONLY | os.O_DIRECTORY)
c.criu_set_images_dir_fd(fd)
c.criu_set_log_file(b"libcriu.log")
c.criu_set_pid(pid)
if c.criu_dump() != 0:
    sys.exit("dump")
print("dumped", flush=True)
sys.stdin.readline()
if c.criu_restore_child() != pid:
    sys.exit("restore")
if open("/proc/self/task/%d/children" % os.getpid()).read().split() != [str(pid)]:
    sys.exit("the children: " + open("/proc/self/task/%d/children" % os.getpid()).read())
`

func TestLibcriuRestoresChild(t *testing.T) {
	testkit.Need(t, testkit.CRIU, testkit.Python, testkit.VictimProgram("counter"))
	debians, ours := testkit.ToolPath(t, "criu", "libcriu", "libcriu.so.2"), ownLibrary(t)
	eachEngine(t, func(t *testing.T, transport string) {
		t.Setenv(swrkVariable, transport)
		for name, lib := range map[string]string{"debian's": debians, "ours": ours} {
			t.Run(name, func(t *testing.T) {
				v := testkit.StartVictim(t, "counter")
				runClient(t, v, libcriuChild, lib, testProgram(t), t.TempDir(), strconv.Itoa(v.Pid))
			})
		}
	})
}

func TestLibcriu(t *testing.T) {
	testkit.Need(t, testkit.CRIU, testkit.Python, testkit.VictimProgram("counter"))
	debians := testkit.ToolPath(t, "criu", "libcriu", "libcriu.so.2")
	ours := ownLibrary(t)
	eachEngine(t, func(t *testing.T, transport string) {
		s := startServer(t, transport, "")
		for name, lib := range map[string]string{"debian's": debians, "ours": ours} {
			t.Run(name, func(t *testing.T) {
				v := testkit.StartVictim(t, "counter")
				runClient(t, v, libcriuClient, lib, s.socket, t.TempDir(), strconv.Itoa(v.Pid), strconv.FormatBool(transport != builtin), roundsOf(transport))
			})
		}
	})
}

// CRIU's own Python client. It knows neither notifications nor requests for the version and features, but sends what it is given.
const pycriuClient = `
import os, sys
sys.path.insert(0, sys.argv[1])
import pycriu
from pycriu import rpc_pb2 as rpc
socket, images, pid, rounds = sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
def client():
    c = pycriu.criu()
    c.use_sk(socket)
    c.opts.log_file = "pycriu.log"
    c.opts.pid = pid
    return c
def directory(name):
    path = os.path.join(images, name)
    os.mkdir(path)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
def ask(typ, **more):
    req = rpc.criu_req(type=typ, **more)
    resp = client()._send_req_and_recv_resp(req)
    if resp.type != typ or not resp.success:
        sys.exit("request %d: %s" % (typ, resp))
    return resp
c = pycriu.criu()
c.use_sk(socket)
c.check()
if ask(rpc.VERSION).version.major_number < 3:
    sys.exit("version")
features = rpc.criu_features(mem_track=True, lazy_pages=True)
if not ask(rpc.FEATURE_CHECK, features=features).HasField("features"):
    sys.exit("features")
last = None
for n in range(0 if rounds == "unable" else 2):
    c = client()
    c.opts.images_dir_fd = directory(str(n))
    c.opts.track_mem = True
    if last is not None:
        c.opts.parent_img = "../" + last
    try:
        c.pre_dump()
        if rounds != "done":
            sys.exit("a round of pre-dump")
        last = str(n)
    except pycriu.CRIUExceptionExternal as e:
        if rounds != "refused" or e.errno != 95 or e.resp_typ != rpc.PRE_DUMP:
            sys.exit("round %d: %s" % (n, e))
c = client()
c.opts.images_dir_fd = directory("last")
if last is not None:
    c.opts.track_mem = True
    c.opts.parent_img = "../" + last
c.dump()
print("dumped", flush=True)
sys.stdin.readline()
r = client()
r.opts.images_dir_fd = c.opts.images_dir_fd
if r.restore().pid != pid:
    sys.exit("restored under another pid")
`

// The same with a peer of its own, whose child, and so this client's, the restored process becomes.
const pycriuChild = `
import os, sys
sys.path.insert(0, sys.argv[1])
import pycriu
program, images, pid = sys.argv[2], sys.argv[3], int(sys.argv[4])
def client():
    c = pycriu.criu()
    c.use_binary(program)
    c.opts.log_file = "pycriu.log"
    c.opts.images_dir_fd = fd
    return c
fd = os.open(images, os.O_RDONLY | os.O_DIRECTORY)
c = client()
c.opts.pid = pid
c.dump()
print("dumped", flush=True)
sys.stdin.readline()
c = client()
c.opts.rst_sibling = True
if c.restore().pid != pid:
    sys.exit("restored under another pid")
children = open("/proc/self/task/%d/children" % os.getpid()).read().split()
if children != [str(pid)]:
    sys.exit("the children: %s" % children)
`

// pycriuPath is where pycriu is, for a Python that has what it needs.
func pycriuPath(t *testing.T) string {
	t.Helper()
	testkit.Need(t, testkit.CRIU, testkit.VictimProgram("counter"), testkit.Feature("python3-protobuf", func() error {
		if err := exec.Command(testkit.PythonPath, "-c", "import google.protobuf").Run(); err != nil {
			return testkit.Missing("python3 cannot import google.protobuf")
		}
		return nil
	}))
	return testkit.ToolPath(t, "criu", "python")
}

func TestPycriu(t *testing.T) {
	dir := pycriuPath(t)
	eachEngine(t, func(t *testing.T, transport string) {
		s := startServer(t, transport, "")
		v := testkit.StartVictim(t, "counter")
		runClient(t, v, pycriuClient, dir, s.socket, t.TempDir(), strconv.Itoa(v.Pid), roundsOf(transport))
	})
}

func TestPycriuRestoresChild(t *testing.T) {
	dir := pycriuPath(t)
	eachEngine(t, func(t *testing.T, transport string) {
		t.Setenv(swrkVariable, transport)
		v := testkit.StartVictim(t, "counter")
		runClient(t, v, pycriuChild, dir, testProgram(t), t.TempDir(), strconv.Itoa(v.Pid))
	})
}

// roundsOf is what becomes of rounds of pre-dump: the built-in engine refuses them by name; CRIU does them where the kernel tells which
// pages were written.
func roundsOf(transport string) string {
	switch {
	case transport == builtin:
		return "refused"
	case testkit.SoftDirty.Probe() != nil:
		return "unable"
	}
	return "done"
}

// runClient runs a client that says when it has dumped the victim and goes on to restore it.
func runClient(t *testing.T, v *testkit.Victim, script string, args ...string) {
	t.Helper()
	cmd := exec.Command(testkit.PythonPath, append([]string{"-c", script}, args...)...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(args[0]))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "dumped\n" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the client said %q, %v; %s", line, err, said.String())
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	v.Restored()
	v.MustVerify()
}

// dial connects by hand.
func dial(t *testing.T, s *testService) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: s.socket}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// answer reads one response.
func answer(t *testing.T, fd int) (*rpc.Resp, error) {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("the conversation ended without an answer")
	}
	resp := new(rpc.Resp)
	return resp, resp.Decode(buf[:n])
}

// Clients that behave badly hurt nobody else, and are told what is wrong where that can be done.
func TestBadClients(t *testing.T) {
	testkit.Need(t, testkit.Root)
	_, peer := yes(t)
	s := startServer(t, peer, "")
	version := func() {
		t.Helper()
		if _, err := criu.New(&criu.Service{Path: s.socket}).Version(t.Context()); err != nil {
			t.Error("another client meanwhile:", err)
		}
	}
	t.Run("says nothing", func(t *testing.T) {
		fd := dial(t, s)
		version()
		unix.Close(fd)
	})
	t.Run("half a request", func(t *testing.T) {
		fd := dial(t, s)
		defer unix.Close(fd)
		req := (&rpc.Req{Type: rpc.ReqCheck, Opts: &rpc.Opts{ImagesDirFD: -1, LogFile: new("long enough")}}).Append(nil)
		if err := unix.Send(fd, req[:len(req)-3], 0); err != nil {
			t.Fatal(err)
		}
		resp, err := answer(t, fd)
		if err != nil || resp.Success || resp.Type != rpc.ReqEmpty || !strings.Contains(text(resp), "cannot be read") {
			t.Errorf("answered %+v, %v", resp, err)
		}
		version()
	})
	t.Run("too much", func(t *testing.T) {
		fd := dial(t, s)
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
			t.Fatal(err)
		}
		if err := unix.Send(fd, make([]byte, 3<<20), 0); err != nil {
			t.Fatal(err)
		}
		resp, err := answer(t, fd)
		if err != nil || resp.CrErrno == nil || *resp.CrErrno != int32(syscall.EMSGSIZE) {
			t.Errorf("answered %+v, %v", resp, err)
		}
		version()
	})
	t.Run("253 descriptors", func(t *testing.T) {
		fd := dial(t, s)
		defer unix.Close(fd)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fds := make([]int, 253)
		for i := range fds {
			fds[i] = int(w.Fd())
		}
		req := (&rpc.Req{Type: rpc.ReqVersion, KeepOpen: new(true)}).Append(nil)
		if err := unix.Sendmsg(fd, req, unix.UnixRights(fds...), nil, 0); err != nil {
			t.Fatal(err)
		}
		if resp, err := answer(t, fd); err != nil || !resp.Success {
			t.Errorf("answered %+v, %v", resp, err)
		}
		// The conversation goes on, and yet nobody has the pipe's other end any more.
		w.Close()
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the pipe: %d, %v, want its end", n, err)
		}
	})
	t.Run("a wrong answer to a notification", func(t *testing.T) {
		v := testkit.StartVictim(t, "counter")
		fd := dial(t, s)
		defer unix.Close(fd)
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		req := &rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{ImagesDirFD: int32(dir.Fd()), PID: new(int32(v.Pid)), NotifyScripts: new(true)}}
		if err := unix.Send(fd, req.Append(nil), 0); err != nil {
			t.Fatal(err)
		}
		if resp, err := answer(t, fd); err != nil || resp.Type != rpc.ReqNotify {
			t.Fatalf("answered %+v, %v", resp, err)
		}
		if err := unix.Send(fd, (&rpc.Req{Type: rpc.ReqVersion}).Append(nil), 0); err != nil {
			t.Fatal(err)
		}
		resp, err := answer(t, fd)
		if err != nil || resp.Success || resp.Type != rpc.ReqDump || !strings.Contains(text(resp), "answered a notification with VERSION") {
			t.Errorf("answered %+v, %v: %s", resp, err, text(resp))
		}
	})
	t.Run("rounds that end wrongly", func(t *testing.T) {
		v := testkit.StartVictim(t, "counter")
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		opts := &rpc.Opts{ImagesDirFD: int32(dir.Fd()), PID: new(int32(v.Pid))}
		for _, tc := range []struct {
			last rpc.ReqType
			ok   bool
		}{{rpc.ReqDump, true}, {rpc.ReqVersion, false}} {
			fd := dial(t, s)
			for _, step := range []rpc.ReqType{rpc.ReqPreDump, rpc.ReqPreDump, tc.last} {
				if err := unix.Send(fd, (&rpc.Req{Type: step, Opts: opts}).Append(nil), 0); err != nil {
					t.Fatal(err)
				}
				resp, err := answer(t, fd)
				if err != nil || resp.Success != (tc.ok || step == rpc.ReqPreDump) {
					t.Errorf("%v: %+v, %v", step, resp, err)
				}
				if step == rpc.ReqVersion && (resp.Type != rpc.ReqEmpty || !strings.Contains(text(resp), "only PRE_DUMP or DUMP may follow")) {
					t.Errorf("%v: %v, %s", step, resp.Type, text(resp))
				}
			}
			unix.Close(fd)
		}
	})
}

// A page server that is the peer's child is answered with PAGE_SERVER, and can be waited for.
func TestPageServerChild(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	s := startServer(t, testkit.CRIUPath(t), "")
	ps, err := criu.New(&criu.Service{Path: s.socket}).PageServerChild(t.Context(), criu.PageServerOptions{ImagesDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer ps.Close()
	p := testkit.OpenProcess(t, ps.PID)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	status, err := ps.Wait(t.Context())
	if err != nil || status != criu.WaitStatus(syscall.SIGKILL) {
		t.Errorf("its end: %v, %v", status, err)
	}
}
