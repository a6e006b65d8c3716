package criu_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// swrk returns a client of a real CRIU that is this process' child.
func swrk(t testing.TB) *criu.Client {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.CRIU)
	return criu.New(&criu.Swrk{Path: testkit.CRIUPath(t)})
}

// dump dumps a victim and waits until its pid is free.
func dump(t testing.TB, c *criu.Client, v *testkit.Victim, o criu.DumpOptions) {
	t.Helper()
	o.PID = v.Pid
	if _, err := c.Dump(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	pidFree(t, v.Pid)
}

func exists(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

func pidFree(t testing.TB, pid int) {
	t.Helper()
	testkit.WaitFor(t, fmt.Sprintf("the pid %d to be free", pid), func() bool { return !exists(pid) })
}

// restore restores a victim under its pid.
func restore(t testing.TB, c *criu.Client, v *testkit.Victim, o criu.RestoreOptions) {
	t.Helper()
	r, err := c.Restore(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.PID != v.Pid {
		t.Fatalf("restored with the pid %d, want %d", r.PID, v.Pid)
	}
	v.Restored()
}

func TestVictims(t *testing.T) {
	for _, name := range []string{"counter", "shell", "python", "threads", "tree", "pipes", "signals", "timers", "mem"} {
		t.Run(name, func(t *testing.T) {
			testkit.Need(t, testkit.VictimProgram(name))
			c, dir := swrk(t), t.TempDir()
			v := testkit.StartVictim(t, name)
			dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
			restore(t, c, v, criu.RestoreOptions{ImagesDir: dir})
			v.MustVerify()
		})
	}
}

func TestRestoredChildsStatus(t *testing.T) {
	for _, test := range []struct {
		argument int
		want     func(syscall.WaitStatus) bool
	}{
		{0, func(w syscall.WaitStatus) bool { return w.Exited() && w.ExitStatus() == 0 }},
		{7, func(w syscall.WaitStatus) bool { return w.Exited() && w.ExitStatus() == 7 }},
		{255, func(w syscall.WaitStatus) bool { return w.Exited() && w.ExitStatus() == 255 }},
		{256 + int(syscall.SIGTERM), func(w syscall.WaitStatus) bool { return w.Signaled() && w.Signal() == syscall.SIGTERM }},
	} {
		t.Run(strconv.Itoa(test.argument), func(t *testing.T) {
			testkit.Need(t, testkit.VictimProgram("exitcode"))
			c, dir := swrk(t), t.TempDir()
			v := testkit.StartVictim(t, "exitcode", strconv.Itoa(test.argument))
			dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
			p, err := c.RestoreChild(t.Context(), criu.RestoreOptions{ImagesDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := p.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("wait for a child that lives: %v", err)
			}
			if err := p.Signal(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			state, err := p.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if w := state.Sys().(syscall.WaitStatus); !test.want(w) {
				t.Errorf("the child ended with %v", state)
			}
			if err := p.Signal(syscall.SIGUSR1); err == nil {
				t.Error("a child that was waited for took a signal")
			}
			if _, err := p.Wait(t.Context()); err == nil {
				t.Error("a child was waited for twice")
			}
		})
	}
}

// TestOrphanPTSMaster: a victim on a terminal whose master is outside gets a new one at the restore, and the caller
// that master's descriptor.
func TestOrphanPTSMaster(t *testing.T) {
	c, dir := swrk(t), t.TempDir()
	master, slave := testkit.OpenPTY(t)
	script := `echo ready >>"$VICTIM_OUTPUT"; while read line; do echo "got $line"; done`
	v := testkit.VictimSpec{Name: "/bin/sh", Args: []string{"-c", script}, Stdin: slave, Stdout: slave, Stderr: slave,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true}}.Start(t)
	talk(t, master, "before")
	slave.Close()
	dump(t, c, v, criu.DumpOptions{ImagesDir: dir, ShellJob: true, OrphanPTSMaster: true})
	master.Close() // the terminal's number is needed again
	var restored *os.File
	restore(t, c, v, criu.RestoreOptions{ImagesDir: dir, ShellJob: true, OrphanPTSMaster: true,
		Notify: func(_ context.Context, ev *criu.Event) error {
			if ev.Name == "orphan-pts-master" {
				restored = ev.TakeFile()
			}
			return nil
		}})
	if restored == nil {
		t.Fatal("no master came")
	}
	defer restored.Close()
	talk(t, restored, "after")
}

// talk writes a line to a terminal and waits for what the victim makes of it.
func talk(t *testing.T, master *os.File, word string) {
	t.Helper()
	// A descriptor that came by notification is in blocking mode; one that hangs ends with the test's own time.
	if _, err := master.WriteString(word + "\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(master)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the terminal: %v", err)
		}
		if strings.TrimSpace(line) == "got "+word {
			return
		}
	}
}

// TestManyInheritedFiles: more descriptors than go before the RPC socket in the child do not overwrite it, and each
// stands in for the right file.
func TestManyInheritedFiles(t *testing.T) {
	testkit.Need(t, testkit.Python)
	c, dir := swrk(t), t.TempDir()
	const many = 20
	script := `import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def tell():
    for fd in range(3, 23): os.write(fd, b"%d\n" % fd)
tell()
while True:
    signal.sigwait({signal.SIGUSR1}); tell()`
	cmd := exec.Command(testkit.PythonPath, "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var readers, writers []*os.File
	var keys []string
	newPipes := func() {
		readers, writers = nil, nil
		for range many {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
			readers, writers = append(readers, r), append(writers, w)
		}
	}
	listen := func() {
		t.Helper()
		for i, r := range readers {
			r.SetReadDeadline(time.Now().Add(testkit.Patience))
			line, err := bufio.NewReader(r).ReadString('\n')
			if err != nil || strings.TrimSpace(line) != strconv.Itoa(i+3) {
				t.Fatalf("pipe %d: %q, %v", i, line, err)
			}
		}
	}
	newPipes()
	for _, w := range writers {
		var st unix.Stat_t
		if err := unix.Fstat(int(w.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, fmt.Sprintf("pipe:[%d]", st.Ino))
	}
	cmd.ExtraFiles = writers
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v := &testkit.Victim{Process: testkit.OpenProcess(t, cmd.Process.Pid)}
	cmd.Process.Release()
	listen()
	if _, err := c.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	pidFree(t, v.Pid)
	newPipes()
	o := criu.RestoreOptions{ImagesDir: dir, LogFile: "restore.log"}
	for i, w := range writers {
		o.InheritFiles = append(o.InheritFiles, criu.InheritFile{Key: keys[i], File: w})
	}
	r, err := c.Restore(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	restored := testkit.OpenProcess(t, r.PID)
	if err := restored.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	listen()
}

func TestPageServer(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	c := swrk(t)
	for _, child := range []bool{true, false} {
		t.Run(fmt.Sprintf("child %v", child), func(t *testing.T) {
			v := testkit.StartVictim(t, "counter")
			pages, dir := t.TempDir(), t.TempDir()
			start := c.PageServer
			if child {
				start = c.PageServerChild
			}
			ps, err := start(t.Context(), criu.PageServerOptions{ImagesDir: pages, PageServer: &criu.PageServerAddr{Address: "127.0.0.1"}, LogFile: "ps.log"})
			if err != nil {
				t.Fatal(err)
			}
			defer ps.Close()
			if ps.Port == 0 || child && ps.PID == 0 { // CRIU 4.2.1 does not tell the pid of one that runs on its own
				t.Fatalf("%+v", ps)
			}
			_, err = c.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, LeaveRunning: true, LogFile: "dump.log",
				PageServer: &criu.PageServerAddr{Address: "127.0.0.1", Port: ps.Port}})
			if err != nil {
				t.Fatal(err)
			}
			status, err := ps.Wait(t.Context())
			if child && (err != nil || !status.Success()) {
				t.Errorf("the page server ended with %v, %v", status, err)
			}
			if !child && !errors.Is(err, criu.ErrOptions) {
				t.Errorf("wait for a page server that is not the peer's child: %v", err)
			}
			testkit.WaitFor(t, "the pages to be there", func() bool {
				found, _ := filepath.Glob(filepath.Join(pages, "pages-*.img"))
				return len(found) > 0
			})
			if found, _ := filepath.Glob(filepath.Join(dir, "pages-*.img")); len(found) > 0 {
				t.Errorf("pages beside the page server: %v", found)
			}
			v.MustVerify()
		})
	}
}

func TestConfigFile(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	c, dir := swrk(t), t.TempDir()
	config := filepath.Join(t.TempDir(), "criu.conf")
	if err := os.WriteFile(config, []byte("leave-running\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := testkit.StartVictim(t, "counter")
	if _, err := c.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, ConfigFile: config}); err != nil {
		t.Fatal(err)
	}
	v.MustVerify()
}

// TestExecCmd: after the restore the peer becomes a command, as the parent of the restored tree.
func TestExecCmd(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	c, dir := swrk(t), t.TempDir()
	v := testkit.StartVictim(t, "counter")
	dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
	told := filepath.Join(dir, "told")
	r, err := c.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir,
		ExecCmd: []string{"/bin/sh", "-c", `echo $$ >"$0.new"; mv "$0.new" "$0"; wait; while kill -0 "$1" 2>/dev/null; do sleep 0.02; done`, told, strconv.Itoa(v.Pid)}})
	if err != nil {
		t.Fatal(err)
	}
	if r.PID != v.Pid {
		t.Errorf("restored with the pid %d, want %d", r.PID, v.Pid)
	}
	testkit.WaitFor(t, "the command to start", func() bool { _, err := os.Stat(told); return err == nil })
	text, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	command := testkit.OpenProcess(t, pid)
	v.Restored()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(v.Pid) + "/status")
	if err != nil || !strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", pid)) {
		t.Errorf("the restored victim is not the command's child: %v\n%s", err, status)
	}
	if err := v.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := command.Kill(); err != nil {
		t.Error(err)
	}
}

func TestWorkDirAndLog(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	c := swrk(t)
	sizes := map[criu.LogLevel]int64{}
	for _, level := range []criu.LogLevel{criu.LogError, criu.LogDebug} {
		v := testkit.StartVictim(t, "counter")
		dir, work := t.TempDir(), t.TempDir()
		if _, err := c.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, WorkDir: work, LogFile: "mine.log", LogLevel: level, LeaveRunning: true}); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(work, "mine.log"))
		if err != nil {
			t.Fatal(err)
		}
		sizes[level] = st.Size()
		stats, err := criu.ReadDumpStats(work)
		if err != nil || stats.PagesWritten == 0 || stats.Frozen <= 0 {
			t.Errorf("statistics: %+v, %v", stats, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "mine.log")); err == nil {
			t.Error("the log is among the images")
		}
		v.MustVerify()
	}
	if sizes[criu.LogDebug] < 4*sizes[criu.LogError]+1000 {
		t.Errorf("sizes of the log by level: %v", sizes)
	}
}

// TestSwrkHooks: what a container runtime does to the child before it works.
func TestSwrkHooks(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	extra, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	var links []string
	var environment []byte
	s := &criu.Swrk{Path: testkit.CRIUPath(t), ExtraFiles: []*os.File{extra, extra}, Env: []string{"ONLY=this"},
		Started: func(pid int) error {
			for fd := range 7 {
				link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
				links = append(links, link)
			}
			var err error
			environment, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			return err
		}}
	if _, err := criu.New(s).Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(links[3], "socket:") || links[4] != os.DevNull || links[5] != os.DevNull {
		t.Errorf("the child's descriptors: %q", links)
	}
	if !slices.Contains(strings.Split(string(environment), "\x00"), "ONLY=this") || strings.Contains(string(environment), "PATH=") {
		t.Errorf("the child's environment: %q", environment)
	}
	mine := errors.New("no cgroup")
	s.Started = func(int) error { return mine }
	if _, err := criu.New(s).Version(t.Context()); !errors.Is(err, mine) || !errors.Is(err, criu.ErrConnect) {
		t.Errorf("a hook that fails: %v", err)
	}
}

// TestOtherNamespaces: a service's client in mount and pid namespaces of its own; the images directory is the client's.
func TestOtherNamespaces(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
	service := startService(t)
	v := testkit.StartVictim(t, "counter")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mount := t.TempDir()
	run := func(what string) {
		t.Helper()
		cmd := testkit.InNamespaces(t.Context(), t, exe)
		cmd.Env = append(os.Environ(), envNamespaces+"="+strings.Join([]string{service.Path, mount, strconv.Itoa(v.Pid), what}, ":"))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "all well") {
			t.Fatalf("%s by a client in other namespaces: %v\n%s", what, err, out)
		}
	}
	buried := make(chan error, 1)
	go func() { // for its pid to be free
		_, err := v.Wait()
		buried <- err
	}()
	run("dump and restore")
	if err := <-buried; err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(mount); err != nil || len(entries) > 0 {
		t.Errorf("something was written on this side of the mount: %v, %v", entries, err)
	}
	v.Restored()
	v.MustVerify()
}

const envNamespaces = "CRIU_TEST_NAMESPACES"

// inNamespaces is the client of TestOtherNamespaces.
func inNamespaces(args string) error {
	part := strings.Split(args, ":")
	socket, mount := part[0], part[1]
	pid, err := strconv.Atoi(part[2])
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("this is pid %d", os.Getpid())
	}
	if err := unix.Mount("stasis-test", mount, "tmpfs", 0, ""); err != nil {
		return err
	}
	c := criu.New(&criu.Service{Path: socket})
	if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: pid, ImagesDir: mount, LogFile: "dump.log"}); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(mount, "inventory.img")); err != nil {
		return err
	}
	// The pid is free when its parent, the test, has waited for it.
	for range 1000 {
		_, err = c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: mount, LogFile: "restore.log"})
		if !errors.Is(err, criu.ErrPIDInUse) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, "all well\n")
	return err
}
