package criu_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

const envHelper = "CRIU_TEST_HELPER"

// helpers does nothing, unless this process is to be a helper of a test's.
func helpers() {
	if args := os.Getenv(envNamespaces); args != "" {
		if err := inNamespaces(args); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	text := os.Getenv(envHelper)
	if text == "" || len(os.Args) > 1 && os.Args[1] == "swrk" {
		return
	}
	var h selfDumper
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	if err := h.run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// selfDumper is a process that dumps itself.
type selfDumper struct {
	Dir     string
	CRIU    string // the binary
	Service string // or the socket
	Times   int
	Running bool // left running
	Adopts  bool // a child subreaper
	Busy    bool // with goroutines that never rest
}

func (h *selfDumper) run() error {
	var transport criu.Transport = &criu.Swrk{Path: h.CRIU}
	if h.Service != "" {
		transport = &criu.Service{Path: h.Service}
	}
	c := criu.New(transport)
	if h.Adopts {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if h.Busy {
		beats := make(chan int)
		for range 4 {
			go func() {
				for i := 0; ; i++ {
					beats <- i
					time.Sleep(time.Millisecond)
				}
			}()
		}
		go func() {
			for range beats {
			}
		}()
	}
	for n := range h.Times {
		images := filepath.Join(h.Dir, fmt.Sprint("images.", n))
		r, err := c.DumpSelf(context.Background(), criu.DumpOptions{ImagesDir: images, LeaveRunning: h.Running, LogFile: "dump.log", LogLevel: criu.LogDebug})
		if err != nil {
			return err
		}
		if children := childList(); children != "" {
			return fmt.Errorf("children after a self-dump (restored: %v): %s", r.Restored, children)
		}
		word := "dumped"
		if r.Restored {
			word = "restored"
		}
		if err := os.WriteFile(filepath.Join(h.Dir, fmt.Sprint(word, ".", n)), []byte(fmt.Sprint(os.Getpid())), 0o600); err != nil {
			return err
		}
		if r.Restored {
			// Stays until the test has taken hold of it.
			f, err := os.Open(filepath.Join(h.Dir, "leave"))
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	return nil
}

func childList() string {
	var all strings.Builder
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		list, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		all.Write(list)
	}
	return all.String()
}

// start runs the helper in a session of its own, with its output in a file.
func (h *selfDumper) start(t *testing.T) *testkit.Process {
	t.Helper()
	for n := range h.Times {
		if err := os.Mkdir(filepath.Join(h.Dir, fmt.Sprint("images.", n)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(h.Dir, "leave"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	output, err := os.OpenFile(filepath.Join(h.Dir, "output"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envHelper+"="+string(text))
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := testkit.OpenProcess(t, cmd.Process.Pid)
	cmd.Process.Release()
	return p
}

func (h *selfDumper) wait(t *testing.T, p *testkit.Process) syscall.WaitStatus {
	t.Helper()
	status, err := p.Wait()
	if err != nil {
		t.Fatalf("%v\n%s", err, h.log())
	}
	return status
}

// log is what can be known of a failure.
func (h *selfDumper) log() string {
	output, _ := os.ReadFile(filepath.Join(h.Dir, "output"))
	text := "output: " + string(output)
	for n := range h.Times {
		log, _ := os.ReadFile(filepath.Join(h.Dir, fmt.Sprint("images.", n), "dump.log"))
		if len(log) > 2000 {
			log = log[len(log)-2000:]
		}
		text += fmt.Sprintf("\nend of log %d: %s", n, log)
	}
	return text
}

// has checks that the helper with the pid has left word of what became of it.
func (h *selfDumper) has(t *testing.T, word string, n, pid int) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(h.Dir, fmt.Sprint(word, ".", n)))
	if err != nil || string(got) != fmt.Sprint(pid) {
		t.Errorf("%s, round %d: %q, %v; want %d\n%s", word, n, got, err, pid, h.log())
	}
}

// TestSelfDump runs in a pid namespace of its own: a Go program has many threads, and on a busy machine another process
// has soon got the number of one that is to be restored.
func TestSelfDump(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.NoRaceDetector)
	if os.Getpid() != 1 {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := testkit.InNamespaces(t.Context(), t, exe, "-test.run=^TestSelfDump$", "-test.v", "-test.timeout=120s")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestSelfDump ") {
			t.Fatalf("in namespaces: %v\n%s", err, out)
		}
		return
	}
	path := testkit.CRIUPath(t)
	for _, test := range []struct {
		name    string
		helper  selfDumper
		service bool
	}{
		{name: "gone", helper: selfDumper{Times: 1}},
		{name: "left running", helper: selfDumper{Times: 1, Running: true}},
		{name: "several in a row", helper: selfDumper{Times: 4, Running: true}},
		{name: "subreaper", helper: selfDumper{Times: 2, Running: true, Adopts: true}},
		{name: "with other goroutines at work", helper: selfDumper{Times: 3, Running: true, Busy: true}},
		{name: "through a service", helper: selfDumper{Times: 2, Running: true}, service: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := test.helper
			h.Dir, h.CRIU = t.TempDir(), path
			if test.service {
				h.Service = startService(t).Path
			}
			p := h.start(t)
			status := h.wait(t, p)
			if h.Running && status != 0 {
				t.Fatalf("the helper ended with status %#x\n%s", int(status), h.log())
			}
			if !h.Running && (!status.Signaled() || status.Signal() != syscall.SIGKILL) {
				t.Fatalf("a helper that was not to be left running ended with status %#x\n%s", int(status), h.log())
			}
			for n := range h.Times {
				if h.Running {
					h.has(t, "dumped", n, p.Pid)
				}
				h.restore(t, path, n, p.Pid)
			}
		})
	}
}

// restore restores one of the helper's dumps; the copy must know that it is one.
func (h *selfDumper) restore(t *testing.T, path string, n, pid int) {
	t.Helper()
	images := filepath.Join(h.Dir, fmt.Sprint("images.", n))
	r, err := criu.New(&criu.Swrk{Path: path}).Restore(t.Context(), criu.RestoreOptions{ImagesDir: images, LogFile: "restore.log"})
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
	if status := h.wait(t, p); status != 0 {
		t.Errorf("the restored copy ended with status %#x\n%s", int(status), h.log())
	}
	h.has(t, "restored", n, pid)
}
