package server

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// selfDumper is a process that has itself dumped.
type selfDumper struct {
	Dir     string
	Service string // the socket
	Swrk    string // or the transport behind a swrk child
	Lib     string // not this program asks, but Python by a C library
	Pycriu  string // … or by CRIU's own client, which is in this directory
	Running bool   // left running
	UID     uint32
}

// run is the process. It leaves word of what became of it, and a restored one stays until the test has taken hold of it.
func (h *selfDumper) run() error {
	var transport criu.Transport = &criu.Service{Path: h.Service}
	if h.Swrk != "" {
		transport = swrkOf(h.Swrk)
	}
	r, err := criu.New(transport).DumpSelf(context.Background(), criu.DumpOptions{ImagesDir: h.images(), LeaveRunning: h.Running, LogFile: "dump.log"})
	if err != nil {
		return err
	}
	word := "dumped"
	if r.Restored {
		word = "restored"
	}
	if err := os.WriteFile(filepath.Join(h.Dir, word), []byte(fmt.Sprint(os.Getpid())), 0o600); err != nil {
		return err
	}
	if !r.Restored {
		return nil
	}
	f, err := os.Open(filepath.Join(h.Dir, "leave"))
	if err != nil {
		return err
	}
	return f.Close()
}

// libcriuSelfDump is the same in C, or nearly so.
const libcriuSelfDump = `
import ctypes, os, sys
lib, socket, dir, running = sys.argv[1], sys.argv[2].encode(), sys.argv[3], sys.argv[4] == "true"
c = ctypes.CDLL(lib)
if c.criu_init_opts() != 0:
    sys.exit("init")
c.criu_set_service_address(socket)
fd = os.open(dir + "/images", os.O_RDONLY | os.O_DIRECTORY)
c.criu_set_images_dir_fd(fd)
c.criu_set_log_file(b"dump.log")
c.criu_set_leave_running(running)
n = c.criu_dump()
if n not in (0, 1):
    sys.exit("dump: %d" % n)
with open(dir + ("/restored" if n else "/dumped"), "w") as f:
    f.write(str(os.getpid()))
if n:
    open(dir + "/leave").close()
`

// pycriuSelfDump is the same by CRIU's own Python client.
const pycriuSelfDump = `
import os, sys
sys.path.insert(0, sys.argv[1])
import pycriu
socket, dir, running = sys.argv[2], sys.argv[3], sys.argv[4] == "true"
c = pycriu.criu()
c.use_sk(socket)
c.opts.images_dir_fd = os.open(dir + "/images", os.O_RDONLY | os.O_DIRECTORY)
c.opts.log_file = "dump.log"
c.opts.leave_running = running
restored = c.dump().restored
with open(dir + ("/restored" if restored else "/dumped"), "w") as f:
    f.write(str(os.getpid()))
if restored:
    open(dir + "/leave").close()
`

func (h *selfDumper) images() string { return filepath.Join(h.Dir, "images") }

// start starts the process in a session of its own, with its output in a file.
func (h *selfDumper) start(t *testing.T) *testkit.Process {
	t.Helper()
	h.Dir = testkit.UserDir(t, int(h.UID))
	if err := os.Mkdir(h.images(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(h.Dir, "leave"), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := os.OpenFile(filepath.Join(h.Dir, "output"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	for _, name := range []string{"images", "leave", "output"} {
		if err := os.Chown(filepath.Join(h.Dir, name), int(h.UID), int(h.UID)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testProgram(t), wordSelf, string(text))
	if h.Lib != "" {
		cmd = exec.Command(testkit.PythonPath, "-c", libcriuSelfDump, h.Lib, h.Service, h.Dir, strconv.FormatBool(h.Running))
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(h.Lib))
	}
	if h.Pycriu != "" {
		cmd = exec.Command(testkit.PythonPath, "-c", pycriuSelfDump, h.Pycriu, h.Service, h.Dir, strconv.FormatBool(h.Running))
	}
	as(cmd, h.UID)
	cmd.Stdout, cmd.Stderr, cmd.Dir = output, output, "/"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := testkit.OpenProcess(t, cmd.Process.Pid)
	cmd.Process.Release()
	return p
}

// word checks what the process with the pid has said of itself.
func (h *selfDumper) word(t *testing.T, word string, pid int) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(h.Dir, word))
	output, _ := os.ReadFile(filepath.Join(h.Dir, "output"))
	if err != nil || string(got) != fmt.Sprint(pid) {
		log, _ := os.ReadFile(filepath.Join(h.images(), "dump.log"))
		t.Fatalf("%s: %q, %v, want %d; it said %q\n%s", word, got, err, pid, output, tail(string(log), 2000))
	}
}

// restored restores the process by somebody; the copy knows that it is one.
func (h *selfDumper) restored(t *testing.T, by criu.Transport, pid int) {
	t.Helper()
	r, err := criu.New(by).Restore(t.Context(), criu.RestoreOptions{ImagesDir: h.images(), LogFile: "restore.log"})
	if err != nil {
		t.Fatal(err)
	}
	if r.PID != pid {
		t.Errorf("restored with the pid %d, want %d", r.PID, pid)
	}
	p := testkit.OpenProcess(t, r.PID)
	testkit.WaitFor(t, "the restored copy to be ready to leave", func() bool {
		f, err := os.OpenFile(filepath.Join(h.Dir, "leave"), os.O_WRONLY|unix.O_NONBLOCK, 0) // ENXIO: nobody reads
		if err == nil {
			f.Close()
		}
		return err == nil || p.Gone()
	})
	if status, err := p.Wait(); err != nil || status != 0 {
		t.Errorf("the restored copy ended with %#x, %v", int(status), err)
	}
	h.word(t, "restored", pid)
}

// TestSelfDumpBuiltin has processes dump themselves through the built-in engine, and restores them by it and by CRIU: they find
// the answer on the socket on which they had asked. It runs in a pid namespace of its own, since a Go program has many threads,
// whose numbers somebody else has soon on a busy machine.
func TestSelfDumpBuiltin(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.Python, testkit.NoRaceDetector)
	if os.Getpid() != 1 {
		cmd := testkit.InNamespaces(t.Context(), t, testProgram(t), "-test.run=^TestSelfDumpBuiltin$", "-test.v", "-test.timeout=120s")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestSelfDumpBuiltin ") {
			t.Fatalf("in namespaces: %v\n%s", err, out)
		}
		return
	}
	by := map[string]criu.Transport{
		"criu": &criu.Swrk{Path: testkit.CRIUPath(t)},
	}
	for _, tc := range []struct {
		name string
		h    selfDumper
	}{
		{"service", selfDumper{}},
		{"service, left running", selfDumper{Running: true}},
		{"swrk", selfDumper{Swrk: builtin}},
		{"swrk, left running", selfDumper{Swrk: builtin, Running: true}},
		{"service, of a user", selfDumper{UID: mallory, Running: true}},
		{"CRIU", selfDumper{Swrk: testkit.CRIUPath(t)}},
		{"Debian's libcriu", selfDumper{Lib: testkit.ToolPath(t, "criu", "libcriu", "libcriu.so.2")}},
		{"our libcriu", selfDumper{Lib: ownLibrary(t), Running: true}},
		{"pycriu", selfDumper{Pycriu: pycriuPath(t)}},
		{"pycriu, left running", selfDumper{Pycriu: pycriuPath(t), Running: true}},
	} {
		for restorer, transport := range by {
			t.Run(tc.name+", restored by "+restorer, func(t *testing.T) {
				h := tc.h
				if h.Swrk == "" {
					h.Service = startServer(t, builtin, "").socket
				}
				p := h.start(t)
				status, err := p.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if h.Running {
					h.word(t, "dumped", p.Pid)
				} else if !status.Signaled() || status.Signal() != syscall.SIGKILL {
					t.Fatalf("the process, which was not to be left running, ended with %#x", int(status))
				}
				h.restored(t, transport, p.Pid)
			})
		}
	}
}
