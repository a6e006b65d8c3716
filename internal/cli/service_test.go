package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// buildStasis builds the program, which has to be one to be executed again as its own worker.
func buildStasis(t *testing.T) string {
	t.Helper()
	testkit.Need(t, testkit.Program("go"))
	path := filepath.Join(t.TempDir(), "stasis")
	if output, err := exec.Command("go", "build", "-o", path, "stasis.example/cmd/stasis").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return path
}

// processesOf are the processes that run a program.
func processesOf(t *testing.T, program string) (pids []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && path == program {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestServe(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	stasis := buildStasis(t)
	t.Run("criu", func(t *testing.T) { serveWith(t, stasis, "criu:"+testkit.CRIUPath(t)) })
	t.Run("builtin", func(t *testing.T) { serveWith(t, stasis, "builtin") })
}

func serveWith(t *testing.T, stasis, engine string) {
	dir := t.TempDir()
	start := func(args ...string) (*exec.Cmd, *os.File) {
		t.Helper()
		ready, readyW, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ready.Close(); readyW.Close() })
		cmd := exec.Command(stasis, append([]string{"service", "--engine", engine, "-W", dir,
			"--address", "socket", "--pidfile", "pid", "-o", "log", "--status-fd", "3"}, args...)...)
		cmd.ExtraFiles = []*os.File{readyW}
		return cmd, ready
	}
	begin := func(cmd *exec.Cmd) {
		t.Helper()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles[0].Close()
	}
	socket := filepath.Join(dir, "socket")
	version := func() error {
		_, err := criu.New(&criu.Service{Path: socket}).Version(t.Context())
		return err
	}
	check := func(ready *os.File) int {
		t.Helper()
		var buf [2]byte
		if n, err := ready.Read(buf[:]); n != 1 || buf[0] != 0 || err != nil {
			t.Fatalf("the status descriptor said %q, %v", buf[:n], err)
		}
		if err := version(); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
		return pid
	}
	gone := func() {
		t.Helper()
		for _, name := range []string{"socket", "pid"} {
			if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there: %v", name, err)
			}
		}
		if left := processesOf(t, stasis); len(left) > 0 {
			t.Errorf("the service has left processes: %v", left)
		}
	}

	t.Run("foreground", func(t *testing.T) {
		cmd, ready := start()
		begin(cmd)
		if pid := check(ready); pid != cmd.Process.Pid {
			t.Errorf("the pidfile says %d, the process is %d", pid, cmd.Process.Pid)
		}
		second, _ := start("--pidfile", "second")
		if output, err := second.CombinedOutput(); err == nil || !strings.Contains(string(output), "a service listens there already") {
			t.Errorf("a second service: %v, %s", err, output)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error("after SIGTERM:", err)
		}
		gone()
	})
	t.Run("background", func(t *testing.T) {
		cmd, ready := start("--daemon")
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		p := testkit.OpenProcess(t, check(ready))
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Error(err)
		}
		gone()
	})
	t.Run("background that fails", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "pid"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(filepath.Join(dir, "pid"))
		cmd, _ := start("--daemon")
		if output, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(output), "the pidfile is there already") {
			t.Errorf("%v: %s", err, output)
		}
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Run("dead", func(t *testing.T) {
		cmd, ready := start()
		begin(cmd)
		check(ready)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		// Its workers have the socket until they find out.
		testkit.WaitFor(t, "its workers to end", func() bool { return len(processesOf(t, stasis)) == 0 })
		if err := version(); !errors.Is(err, criu.ErrConnect) {
			t.Errorf("a dead service: %v", err)
		}
		for range 5 {
			if err := os.Remove(filepath.Join(dir, "pid")); err != nil {
				t.Fatal(err)
			}
			cmd, ready = start()
			begin(cmd)
			check(ready)
			// The next one need not wait for them.
			cmd.Process.Kill()
			cmd.Wait()
		}
		if err := os.Remove(filepath.Join(dir, "pid")); err != nil {
			t.Fatal(err)
		}
		cmd, ready = start()
		begin(cmd)
		check(ready)
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		testkit.WaitFor(t, "the workers of those that were killed to end", func() bool { return len(processesOf(t, stasis)) == 0 })
		gone()
	})
}

// A service manager passes the socket.
func TestServeOnInheritedSocket(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.Program("python3"))
	stasis := buildStasis(t)
	for name, engine := range map[string]string{"criu": "criu:" + testkit.CRIUPath(t), "builtin": "builtin"} {
		t.Run(name, func(t *testing.T) { serveOnInheritedSocket(t, stasis, engine) })
	}
}

func serveOnInheritedSocket(t *testing.T, stasis, engine string) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	// What systemd does: the socket as descriptor 3, and the pid in the environment.
	cmd := exec.Command("python3", "-c", `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1]); s.listen(5)
if s.fileno() != 3:
    os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
print("listening", flush=True)
os.execv(sys.argv[2], sys.argv[2:])
`, socket, stasis, "service", "--engine", engine, "-W", dir, "-o", "log")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := criu.New(&criu.Service{Path: socket}).Version(t.Context()); err != nil {
		t.Error(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Error("the service removed a socket that is its manager's:", err)
	}
}

// systemd's own program for it starts the service, as the units have it, with its first client: what they say is what systemd knows,
// and what the program does.
func TestUnits(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Program("systemd-analyze"), testkit.Program("systemd-socket-activate"))
	stasis, dir := buildStasis(t), t.TempDir()
	units := filepath.Join(testkit.SourceRoot(), "docs", "systemd")
	var command []string
	var verify []string
	for _, name := range []string{"stasis.socket", "stasis.service"} {
		text, err := os.ReadFile(filepath.Join(units, name))
		if err != nil {
			t.Fatal(err)
		}
		// The program is where it was built, not where it is to be installed.
		unit := strings.ReplaceAll(string(text), "/usr/local/bin/stasis", stasis)
		for line := range strings.Lines(unit) {
			if words, ok := strings.CutPrefix(line, "ExecStart="); ok {
				command = strings.Fields(strings.ReplaceAll(words, "/var/lib/stasis", dir))
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		verify = append(verify, path)
	}
	if output, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, verify...)...).CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, output)
	}
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command("systemd-socket-activate", append([]string{"--seqpacket", "--listen", socket}, command...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	testkit.WaitFor(t, "the socket", func() bool { _, err := os.Stat(socket); return err == nil })
	if n := len(processesOf(t, stasis)); n != 0 {
		t.Errorf("the service runs before it has a client: %d processes", n)
	}
	for range 2 {
		if _, err := criu.New(&criu.Service{Path: socket}).Version(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if !slices.Contains(processesOf(t, stasis), cmd.Process.Pid) {
		t.Error("the service is not what systemd-socket-activate has turned into")
	}
}
