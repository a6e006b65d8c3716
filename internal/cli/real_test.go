package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// realEnv is the environment of tests that ask a real CRIU: no configuration files but those of the test.
func realEnv(t testing.TB, engine string) []string {
	return append(os.Environ(), "HOME="+t.TempDir(), configVariable+"=", engineVariable+"="+engine)
}

func criuEnv(t testing.TB) []string { return realEnv(t, "criu:"+testkit.CRIUPath(t)) }

func needReal(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("counter"))
}

// tmpfs mounts a file system on a new directory.
func tmpfs(t *testing.T, options string, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestBadInput: each of these is a sentence that names the thing, and the victim runs on.
func TestBadInput(t *testing.T) {
	needReal(t)
	env := criuEnv(t)
	v := testkit.StartVictim(t, "counter")
	pid := fmt.Sprint(v.Pid)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	gonePID := fmt.Sprint(gone.Process.Pid)
	empty := t.TempDir()
	full, readOnly := tmpfs(t, "size=16k", 0), tmpfs(t, "", unix.MS_RDONLY)
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"no pid", []string{"dump", "-D", t.TempDir()}, []string{"stasis: dump: no process given: name the root of the tree with --tree PID"}},
		{"a pid that is gone", []string{"dump", "-D", t.TempDir(), "-t", gonePID}, []string{"stasis: cannot dump process " + gonePID + ": there is no process " + gonePID, "It has ended"}},
		{"no directory", []string{"dump", "-D", "/nonexistent/d", "-t", pid}, []string{"stasis: the images directory cannot be opened: open /nonexistent/d: no such file or directory"}},
		{"a file for a directory", []string{"dump", "-D", v.Output, "-t", pid}, []string{"stasis: the images directory cannot be opened: open " + v.Output + ": not a directory"}},
		{"a full directory", []string{"dump", "-D", full, "-t", pid}, []string{"stasis: cannot dump process " + pid + ": the file system of " + full + " is full", "Make room there", "Process " + pid + " was left as it was."}},
		{"a full directory with its log", []string{"dump", "-D", full, "-o", "dump.log", "-t", pid}, []string{"stasis: cannot dump process " + pid + ": the file system of " + full + " is full", "The log is " + full + "/dump.log."}},
		{"a read-only directory", []string{"dump", "-D", readOnly, "-t", pid}, []string{"stasis: cannot dump process " + pid, readOnly, "read-only file system"}},
		{"a log in a read-only directory", []string{"dump", "-D", readOnly, "-o", "dump.log", "-t", pid}, []string{"stasis: the log cannot be written: open " + readOnly + "/dump.log: read-only file system"}},
		{"a socket path that is too long", []string{"dump", "-D", t.TempDir(), "-t", pid, "--engine", "service:/" + strings.Repeat("x", 107)}, []string{"the socket path has 108 bytes, at most 107 fit into an address"}},
		{"a program that is not CRIU", []string{"dump", "-D", t.TempDir(), "-t", pid, "--engine", "criu:/bin/true"}, []string{"stasis: cannot dump process " + pid + ": /bin/true: ", "is it CRIU?"}},
		{"no program", []string{"dump", "-D", t.TempDir(), "-t", pid, "--engine", "criu:/nonexistent/criu"}, []string{"/nonexistent/criu", "no such file or directory"}},
		{"no service", []string{"dump", "-D", t.TempDir(), "-t", pid, "--engine", "service:/nonexistent/socket"}, []string{"stasis: cannot dump process " + pid + ": /nonexistent/socket: ", "Is a service running there? `criu service --address /nonexistent/socket` starts one."}},
		{"a pid that is gone, for a pre-dump", []string{"pre-dump", "-D", t.TempDir(), "-t", gonePID}, []string{"stasis: cannot pre-dump process " + gonePID + ": there is no process " + gonePID + "\n  It has ended, or its pid is that of another pid namespace.\n  For"}},
		{"images that are not there", []string{"restore", "-d", "-D", empty}, []string{"stasis: there is no checkpoint in " + empty + ": it has no inventory.img"}},
		{"a file that was not handed over", []string{"restore", "-d", "-D", t.TempDir(), "--inherit-fd", "fd[987]:x"}, []string{"stasis: --inherit-fd: there is no open file 987: bad file descriptor"}},
	} {
		status, out, errs := invoke(t, env, append([]string{"stasis"}, test.args...)...)
		if status != 1 || out != "" {
			t.Errorf("%s: status %d, output %q", test.name, status, out)
		}
		for _, want := range test.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: %q is not said in\n%s", test.name, want, errs)
			}
		}
	}
	v.MustVerify()
}

// dumped dumps a victim, which is gone then.
func dumped(t *testing.T, env []string, v *testkit.Victim, args ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	status, _, errs := invoke(t, env, append([]string{"stasis", "dump", "-D", dir, "-t", fmt.Sprint(v.Pid)}, args...)...)
	if status != 0 {
		t.Fatalf("dump: status %d\n%s", status, errs)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDamagedImages: images that are cut off are told from others, before anything is made or, at the least, without
// leaving anything.
func TestDamagedImages(t *testing.T) {
	needReal(t)
	env := criuEnv(t)
	v := testkit.StartVictim(t, "counter")
	dir := dumped(t, env, v)
	for _, test := range []struct {
		file string
		size int64
		want string
	}{
		// CRIU never comes back from this one.
		{"pages-1.img", 100, "are damaged, and nothing was restored from them"},
		{fmt.Sprintf("pagemap-%d.img", v.Pid), 20, "are damaged, and nothing was restored from them"},
		{fmt.Sprintf("core-%d.img", v.Pid), 30, "stasis: cannot restore the tree: "},
		{fmt.Sprintf("mm-%d.img", v.Pid), 30, "stasis: cannot restore the tree: "},
		{"pstree.img", 10, "stasis: cannot restore the tree: "},
		{"inventory.img", 5, "stasis: cannot restore the tree: "},
	} {
		damaged := t.TempDir()
		if err := os.CopyFS(damaged, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(damaged, test.file), test.size); err != nil {
			t.Fatal(err)
		}
		status, _, errs := invoke(t, env, "stasis", "restore", "-d", "-D", damaged, "--pidfile", "it.pid")
		if status != 1 || !strings.Contains(errs, test.want) {
			t.Errorf("%s cut to %d bytes: status %d, want %q in\n%s", test.file, test.size, status, test.want, errs)
		}
		if _, err := os.Stat(filepath.Join(damaged, "it.pid")); err == nil {
			t.Errorf("%s cut: a pidfile is left", test.file)
		}
		if unix.Kill(v.Pid, 0) == nil { // killed, and about to be reaped
			v.Restored()
			v.Wait()
		}
	}
	if status, _, errs := invoke(t, env, "stasis", "restore", "-d", "-D", dir); status != 0 {
		t.Fatalf("the images themselves: status %d\n%s", status, errs)
	}
	v.Restored()
	v.MustVerify()
}

// testJSON: what a machine reads.
func testJSON(t *testing.T, env []string) {
	read := func(into any, args ...string) {
		t.Helper()
		_, out, errs := invoke(t, env, append([]string{"stasis"}, args...)...)
		d := json.NewDecoder(strings.NewReader(out))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil || d.More() {
			t.Fatalf("%v: %v: %q, %s", args, err, out, errs)
		}
	}
	var version versionAnswer
	read(&version, "version", "--json")
	if version.Engine.Version == "" || version.Engine.Error != "" {
		t.Errorf("version: %+v", version)
	}
	var check checkAnswer
	read(&check, "check", "--json")
	if !check.OK || check.Features == nil {
		t.Errorf("check: %+v", check)
	}
	v, dir := testkit.StartVictim(t, "counter"), t.TempDir()
	var dump dumpAnswer
	read(&dump, "dump", "--json", "-R", "-D", dir, "-t", fmt.Sprint(v.Pid))
	if !dump.OK || dump.PID != v.Pid || dump.ImagesDir != dir || dump.State != "running" || dump.Files < 5 || dump.Bytes < 4096 || dump.Stats == nil || dump.Stats.PagesWritten == 0 || dump.Stats.Frozen <= 0 {
		t.Errorf("dump: %+v, %+v", dump, dump.Stats)
	}
	var failed failure
	read(&failed, "restore", "-d", "--json", "-D", dir)
	if failed.OK || failed.Error.Errno != "EEXIST" || failed.Error.Op != "restore" || len(failed.Error.Log) == 0 {
		t.Errorf("a restore with the pid in use: %+v", failed)
	}
	read(&dump, "dump", "--json", "-D", dir, "-t", fmt.Sprint(v.Pid))
	if dump.State != "gone" {
		t.Errorf("dump: %+v", dump)
	}
	v.Wait()
	var restore restoreAnswer
	read(&restore, "restore", "-d", "--json", "-D", dir)
	if !restore.OK || restore.PID != v.Pid {
		t.Errorf("restore: %+v", restore)
	}
	v.Restored()
	v.MustVerify()
}

// start starts the program by itself and returns it with what it writes to standard error.
func start(t *testing.T, env []string, name string, args ...string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(programs(t), name), args...)
	cmd.Env = env
	errs := new(strings.Builder)
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, errs
}

func status(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		t.Fatalf("%v was ended by %v", cmd.Args, ws.Signal())
	}
	return ws.ExitStatus()
}

// testForeground: a restore in the foreground waits for the tree and ends as it did; called criu it ends with 0. The
// pid is in the pidfile by then.
func testForeground(t *testing.T, env []string) {
	for _, test := range []struct {
		name   string
		status string // of the victim; 256 and more are signals
		want   int
	}{
		{"stasis", "7", 7}, {"stasis", "0", 0}, {"stasis", fmt.Sprint(256 + int(unix.SIGTERM)), 128 + int(unix.SIGTERM)}, {"criu", "7", 0},
	} {
		v := testkit.StartVictim(t, "exitcode", test.status)
		dir := dumped(t, env, v)
		cmd, errs := start(t, env, test.name, "restore", "-D", dir, "--pidfile", "it.pid")
		v.Restored(waitForPidfile(t, filepath.Join(dir, "it.pid")))
		if err := v.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if got := status(t, cmd); got != test.want {
			t.Errorf("%s, a victim that ends with %s: status %d, want %d\n%s", test.name, test.status, got, test.want, errs)
		}
	}
}

func waitForPidfile(t *testing.T, path string) (pid int) {
	t.Helper()
	testkit.WaitFor(t, "a pid in "+path, func() bool {
		text, err := os.ReadFile(path)
		if err != nil || len(text) == 0 {
			return false
		}
		n, err := parsePID(string(text))
		if err != nil {
			t.Fatal(err)
		}
		pid = int(n)
		return true
	})
	return pid
}

// testForegroundSignals: a signal to the program is for the task.
func testForegroundSignals(t *testing.T, env []string) {
	v := testkit.StartVictim(t, "counter")
	dir := dumped(t, env, v)
	cmd, errs := start(t, env, "stasis", "restore", "-D", dir, "--pidfile", "it.pid")
	v.Restored(waitForPidfile(t, filepath.Join(dir, "it.pid")))
	// A signal that comes before the program waits for the tree is for nobody, so it is sent until it was heard.
	testkit.WaitFor(t, "the victim to be asked through the program", func() bool {
		if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		return v.Gone()
	})
	if line := v.NextLine(); line != "ok" {
		t.Errorf("the victim, asked through the program, says %q", line)
	}
	if got := status(t, cmd); got != 0 {
		t.Errorf("status %d\n%s", got, errs)
	}
}

// testExecCmd: the command becomes the parent of the tree.
func testExecCmd(t *testing.T, env []string) {
	v := testkit.StartVictim(t, "counter")
	dir := dumped(t, env, v)
	parent := filepath.Join(t.TempDir(), "parent")
	cmd, errs := start(t, env, "stasis", "restore", "-D", dir, "--exec-cmd", "--", "sh", "-c",
		fmt.Sprintf("grep PPid: /proc/%d/status > %s; echo $$ >> %s; kill -USR1 %d; exit 5", v.Pid, parent, parent, v.Pid))
	if got := status(t, cmd); got != 5 {
		t.Fatalf("status %d, want the command's\n%s", got, errs)
	}
	text, err := os.ReadFile(parent)
	if err != nil {
		t.Fatal(err)
	}
	if words := strings.Fields(string(text)); len(words) != 3 || words[1] != words[2] || words[2] != fmt.Sprint(cmd.Process.Pid) {
		t.Errorf("the parent of the tree and the command: %q; the program was %d", words, cmd.Process.Pid)
	}
	testkit.WaitFor(t, "the victim's verdict", func() bool { // whose child it is by now is of no interest
		said, err := os.ReadFile(v.Output)
		return err == nil && strings.HasSuffix(string(said), "ok\n")
	})
}

// TestService: the same by a service, where the RPC can.
func TestService(t *testing.T) {
	needReal(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	service := exec.CommandContext(t.Context(), testkit.CRIUPath(t), "service", "--address", socket, "-W", dir)
	service.Cancel = func() error { return service.Process.Signal(unix.SIGTERM) }
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		service.Process.Signal(unix.SIGTERM)
		service.Wait()
	}()
	testkit.WaitFor(t, "the service's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	env := realEnv(t, "service:"+socket)
	if status, out, errs := invoke(t, env, "stasis", "check"); status != 0 || out != "Looks good.\n" {
		t.Errorf("check: status %d, %q\n%s", status, out, errs)
	}
	v := testkit.StartVictim(t, "counter")
	images := dumped(t, env, v, "-o", "dump.log")
	if info, err := os.Stat(filepath.Join(images, "dump.log")); err != nil || info.Size() == 0 {
		t.Errorf("the log: %v, %v", info, err)
	}
	if status, _, errs := invoke(t, env, "stasis", "restore", "-d", "-D", images, "--pidfile", "it.pid", "-o", "restore.log"); status != 0 {
		t.Fatalf("restore: status %d\n%s", status, errs)
	}
	v.Restored(waitForPidfile(t, filepath.Join(images, "it.pid")))
	v.MustVerify()
}

// TestChildConfiguration: what the RPC has no field for reaches the swrk child.
func TestChildConfiguration(t *testing.T) {
	needReal(t)
	env := criuEnv(t)
	v := testkit.StartVictim(t, "counter")
	plugins := filepath.Join(t.TempDir(), `with a "blank"`)
	if err := os.Mkdir(plugins, 0o700); err != nil {
		t.Fatal(err)
	}
	// A child that does not know an option, or did not get its value, fails.
	if status, _, errs := invoke(t, env, "stasis", "dump", "-R", "-D", t.TempDir(), "-t", fmt.Sprint(v.Pid), "--libdir", plugins,
		"--file-validation=filesize", "--allow-uprobes", "--no-ghost-fiemap", "--no-stream", "--deprecated"); status != 0 {
		t.Errorf("status %d\n%s", status, errs)
	}
	if status, _, errs := invoke(t, env, "stasis", "dump", "-R", "-D", t.TempDir(), "-t", fmt.Sprint(v.Pid), "--libdir", plugins+"s"); status != 1 || !strings.Contains(errs, "Unable to open directory") {
		t.Errorf("plugins in a directory that is not there: status %d\n%s", status, errs)
	}
	if status, _, _ := invoke(t, env, "stasis", "dump", "-R", "-D", t.TempDir(), "-t", fmt.Sprint(v.Pid), "--stream"); status != 1 {
		t.Errorf("--stream without a streamer ends with status %d", status)
	}
	dir := dumped(t, env, v)
	if status, _, errs := invoke(t, env, "stasis", "restore", "-d", "-D", dir, "--log-pid", "-o", "restore.log", "-v4"); status != 0 {
		t.Fatalf("status %d\n%s", status, errs)
	}
	v.Restored()
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("restore.log.%d", v.Pid))); err != nil {
		t.Errorf("--log-pid did not reach the child: %v", err)
	}
	v.MustVerify()
}

// TestPageServer: memory goes over a page server that says when it is ready and ends when it has served.
func TestPageServer(t *testing.T) {
	needReal(t)
	env := criuEnv(t)
	v, images, memory := testkit.StartVictim(t, "counter"), t.TempDir(), t.TempDir()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "stasis"), "page-server", "-D", memory, "--json", "--status-fd", "3", "-o", "ps.log")
	cmd.Env, cmd.ExtraFiles = env, []*os.File{writer}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if err := reader.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 2)
	if n, err := reader.Read(one); n != 1 || one[0] != 0 || err != nil {
		t.Fatalf("the status descriptor tells %q, %v", one[:n], err)
	}
	var answer pageServerAnswer
	if err := json.NewDecoder(out).Decode(&answer); err != nil || answer.Port == 0 || answer.PID == 0 {
		t.Fatalf("%+v, %v", answer, err)
	}
	if s, _, errs := invoke(t, env, "stasis", "dump", "-D", images, "-t", fmt.Sprint(v.Pid), "--page-server", "--address", "127.0.0.1", "--port", fmt.Sprint(answer.Port)); s != 0 {
		t.Fatalf("dump: status %d\n%s", s, errs)
	}
	v.Wait()
	if got := status(t, cmd); got != 0 {
		t.Errorf("the page server ends with status %d", got)
	}
	if err := os.CopyFS(images, os.DirFS(memory)); err != nil {
		t.Fatal(err)
	}
	if s, _, errs := invoke(t, env, "stasis", "restore", "-d", "-D", images); s != 0 {
		t.Fatalf("restore: status %d\n%s", s, errs)
	}
	v.Restored()
	v.MustVerify()
}

// TestPageServerInBackground: --daemon leaves a page server whose pid is in the pidfile.
func TestPageServerInBackground(t *testing.T) {
	needReal(t)
	dir := t.TempDir()
	if s, _, errs := invoke(t, criuEnv(t), "stasis", "page-server", "-D", dir, "--daemon", "--pidfile", "ps.pid"); s != 0 {
		t.Fatalf("status %d\n%s", s, errs)
	}
	p := testkit.OpenProcess(t, waitForPidfile(t, filepath.Join(dir, "ps.pid")))
	if p.Gone() {
		t.Fatal("the page server is gone")
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.Wait()
}

// testDemo: the demo runs where there is no terminal and standard streams are files.
func testDemo(t *testing.T, env []string) {
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	kept := t.TempDir()
	for _, args := range [][]string{{"demo"}, {"demo", "-D", kept}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "stasis"), args...)
		cmd.Env = append(slices.Clone(env), "TMPDIR="+dir)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		err = cmd.Run()
		text, readErr := os.ReadFile(out.Name())
		if err != nil || readErr != nil {
			t.Fatalf("%v, %v\n%s", err, readErr, text)
		}
		for _, want := range []string{"start ", "dump ", "pages-1.img", "stood still for", "gone ", "restore ", "none missing, none twice"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%v: %q is not in\n%s", args, want, text)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(kept, "pages-1.img")); err != nil {
		t.Errorf("the files of a directory that was named are to stay: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "stasis-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// testSibling: --restore-sibling makes the tree a child of the caller's, for which the criu program takes our place.
func testSibling(t *testing.T, env []string) {
	v := testkit.StartVictim(t, "counter")
	dir := dumped(t, env, v)
	cmd, errs := start(t, env, "stasis", "restore", "-d", "-S", "-D", dir)
	if got := status(t, cmd); got != 0 {
		t.Fatalf("status %d\n%s", got, errs)
	}
	v.Restored()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	if words := strings.Fields(rest); len(words) < 2 || words[1] != fmt.Sprint(os.Getpid()) {
		t.Errorf("the parent is not this test, %d: %q", os.Getpid(), rest)
	}
	v.MustVerify()
}

// TestFeatureJSON: single features, for a machine.
func TestFeatureJSON(t *testing.T) {
	needReal(t)
	s, out, errs := invoke(t, criuEnv(t), "stasis", "check", "--json", "--feature", "ns_pid", "--feature", "mem_dirty_track")
	var a featureAnswer
	if err := json.Unmarshal([]byte(out), &a); err != nil || s != 0 || !a.OK || len(a.Features) != 2 || !a.Features["ns_pid"] {
		t.Errorf("status %d, %v, %+v, %s", s, err, a, errs)
	}
	if s, _, errs := invoke(t, criuEnv(t), "stasis", "check", "--json", "--feature", "nosuch"); s != 1 || !strings.Contains(errs, `criu knows no feature "nosuch"`) {
		t.Errorf("status %d, %s", s, errs)
	}
}

// testTerminal: on a terminal, a dump and a restore say in a line what they did.
func testTerminal(t *testing.T, env []string) {
	v, dir := testkit.StartVictim(t, "counter"), t.TempDir()
	master, slave := testkit.OpenPTY(t)
	lines := bufio.NewScanner(master)
	say := func(args ...string) string {
		t.Helper()
		if status := runWith(t, env, slave, slave, slave, append([]string{"stasis"}, args...)...); status != 0 {
			t.Errorf("%v: status %d", args, status)
		}
		if !lines.Scan() {
			t.Fatalf("%v: nothing is said", args)
		}
		return lines.Text()
	}
	if got := say("dump", "-D", dir, "-t", fmt.Sprint(v.Pid)); !strings.Contains(got, fmt.Sprintf("%d is in %s, ", v.Pid, dir)) || !strings.Contains(got, "stood still for") {
		t.Errorf("dump: %q", got)
	}
	v.Wait()
	if got := say("restore", "-d", "-D", dir); !strings.Contains(got, fmt.Sprintf("%d is back, after ", v.Pid)) {
		t.Errorf("restore: %q", got)
	}
	v.Restored()
	v.MustVerify()
}

// TestPreDump: where the kernel cannot track changes of memory, that is said, and the victim runs on either way.
func TestPreDump(t *testing.T) {
	needReal(t)
	v, dir := testkit.StartVictim(t, "counter"), t.TempDir()
	status, _, errs := invoke(t, criuEnv(t), "stasis", "pre-dump", "-D", dir, "-t", fmt.Sprint(v.Pid))
	var check checkAnswer
	_, out, _ := invoke(t, criuEnv(t), "stasis", "check", "--json")
	if err := json.Unmarshal([]byte(out), &check); err != nil || check.Features == nil {
		t.Fatalf("check: %v, %s", err, out)
	}
	switch {
	case check.Features.MemTrack && status != 0:
		t.Errorf("status %d\n%s", status, errs)
	case !check.Features.MemTrack && (status != 1 || !strings.Contains(errs, "This kernel does not track changes of memory")):
		t.Errorf("status %d\n%s", status, errs)
	}
	v.MustVerify()
}

// testInterrupt: a dump that is interrupted is undone.
func testInterrupt(t *testing.T, env []string) {
	v, dir := testkit.StartVictim(t, "counter"), t.TempDir()
	// The script holds the dump at a stage where the victim is frozen and tells that it is there.
	reached := filepath.Join(dir, "reached")
	script := filepath.Join(dir, "script")
	if err := testkit.WriteProgram(script, []byte("#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION = post-dump ] || exit 0\n: > "+reached+"\nexec sleep 60\n")); err != nil {
		t.Fatal(err)
	}
	cmd, errs := start(t, env, "stasis", "dump", "-D", dir, "-t", fmt.Sprint(v.Pid), "--action-script", script)
	testkit.WaitFor(t, "the dump to reach its script", func() bool { _, err := os.Stat(reached); return err == nil })
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := status(t, cmd); got != 128+int(unix.SIGINT) {
		t.Errorf("status %d\n%s", got, errs)
	}
	if !strings.Contains(errs.String(), "interrupted by SIGINT") || !strings.Contains(errs.String(), "was left as it was") {
		t.Errorf("it says\n%s", errs)
	}
	v.MustVerify()
}

// TestLazyDump: --status-fd tells when a dump that keeps the memory is ready to serve it; interrupted then, the dump is
// undone.
func TestLazyDump(t *testing.T) {
	needReal(t)
	v := testkit.StartVictim(t, "counter")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "stasis"), "dump", "--lazy-pages", "--address", "127.0.0.1", "--status-fd", "3", "-t", fmt.Sprint(v.Pid))
	cmd.Env, cmd.ExtraFiles, cmd.Dir = criuEnv(t), []*os.File{writer}, t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if err := reader.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	told, err := io.ReadAll(reader)
	if err != nil || string(told) != "\x00" {
		t.Errorf("the status descriptor tells %q, %v", told, err)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := status(t, cmd); got != 128+int(unix.SIGTERM) {
		t.Errorf("status %d", got)
	}
	v.MustVerify()
}
