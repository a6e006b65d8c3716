package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

// realCRIU is a directory for one test with a real CRIU.
type realCRIU struct {
	t    *testing.T
	lib  string
	prog string
	dir  string
}

func newReal(t *testing.T) *realCRIU {
	t.Helper()
	testkit.Need(t, testkit.Root, testkit.NoRaceDetector)
	criu := testkit.CRIUPath(t)
	r := &realCRIU{t: t, lib: library(t), prog: program(t, "real.c"), dir: testkit.DiskDir(t)}
	t.Setenv("PATH", filepath.Dir(criu)+":"+os.Getenv("PATH"))
	return r
}

// in returns the same for a subtest.
func (r *realCRIU) in(t *testing.T) *realCRIU {
	return &realCRIU{t: t, lib: r.lib, prog: r.prog, dir: testkit.DiskDir(t)}
}

// images returns a new directory.
func (r *realCRIU) images(name string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, name)
	must(r.t, os.MkdirAll(dir, 0o755))
	return dir
}

// act runs an action and returns what it printed.
func (r *realCRIU) act(args ...string) output {
	r.t.Helper()
	cmd := with(command(r.t, r.prog, args...), libraryPath(r.lib))
	cmd.Dir = r.dir
	return output{r.t, run(r.t, cmd)}
}

type output struct {
	t    *testing.T
	text string
}

// want fails the test unless a line of the output matches the pattern as a whole, and returns its groups.
func (o output) want(pattern string) []string {
	o.t.Helper()
	m := regexp.MustCompile("(?m)^" + pattern + "$").FindStringSubmatch(o.text)
	if m == nil {
		o.t.Fatalf("no line %q in:\n%s", pattern, o.text)
	}
	return m
}

// victim starts a process that counts.
func (r *realCRIU) victim(name string) *counter {
	r.t.Helper()
	c := &counter{t: r.t, file: filepath.Join(r.dir, name)}
	cmd := with(exec.Command(r.prog, "victim", c.file), libraryPath(r.lib))
	cmd.Dir = "/"
	must(r.t, cmd.Start())
	c.pid = cmd.Process.Pid
	r.t.Cleanup(func() { c.kill() })
	go func() { _ = cmd.Wait() }()
	c.advance()
	return c
}

type counter struct {
	t    *testing.T
	file string
	pid  int
}

func (c *counter) value() int {
	b, err := os.ReadFile(c.file)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
	return n
}

// advance waits until the victim has counted on.
func (c *counter) advance() {
	c.t.Helper()
	from := c.value()
	testkit.WaitFor(c.t, "the victim counts on from "+strconv.Itoa(from), func() bool { return c.value() > from+2 })
}

func (c *counter) alive() bool { return unix.Kill(c.pid, 0) == nil }

// gone waits until the process is dead and has been waited for.
func (c *counter) gone() {
	c.t.Helper()
	testkit.WaitFor(c.t, fmt.Sprintf("process %d is gone", c.pid), func() bool { return !c.alive() })
}

// kill ends the victim, which may be a child of the test's or have been restored to be anybody's.
func (c *counter) kill() {
	if !c.alive() {
		return
	}
	_ = unix.Kill(c.pid, unix.SIGKILL)
	testkit.WaitFor(c.t, "the victim is gone", func() bool {
		_, _ = unix.Wait4(c.pid, nil, unix.WNOHANG, nil)
		return !c.alive()
	})
}

// startService starts `criu service` and returns the peer argument for it.
func (r *realCRIU) startService() string {
	r.t.Helper()
	socket := filepath.Join(r.dir, "socket")
	cmd := exec.Command("criu", "service", "--address", socket, "-o", filepath.Join(r.dir, "service.log"), "-v4")
	cmd.Dir = r.dir
	must(r.t, cmd.Start())
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	testkit.WaitFor(r.t, "the service listens", func() bool {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		must(r.t, err)
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrUnix{Name: socket}) == nil
	})
	return socket
}

// TestRealPeers dumps and restores another process over each of the three ways to a real CRIU.
func TestRealPeers(t *testing.T) {
	r := newReal(t)
	socket := r.startService()
	for _, peer := range []string{"bin", "sk:" + socket, "fd:" + socket} {
		t.Run(peer[:min(3, len(peer))], func(t *testing.T) {
			r := r.in(t)
			r.act(peer, "check", r.dir).want("check 0 0")
			r.act(peer, "version", r.dir).want(`version 40\d\d\d 0`)
			v := r.victim("counter")
			pid := "pid=" + strconv.Itoa(v.pid)

			dump := r.act(peer, "dump", r.images("img"), pid, "log=dump.log")
			dump.want("dump 0 0")
			dump.want("notify pre-dump 0 data")
			dump.want("notify post-dump 0 data")
			v.gone()
			at := v.value()

			restore := r.act(peer, "restore", r.images("img"), "log=restore.log")
			restore.want(fmt.Sprintf("restore %d 0", v.pid))
			restore.want(fmt.Sprintf("notify post-restore %d data", v.pid))
			v.advance()
			if now := v.value(); now < at {
				t.Errorf("the counter went from %d back to %d", at, now)
			}

			// The pid is taken now.
			again := r.act(peer, "restore", r.images("img"), "log=again.log")
			again.want("restore -52 17")
			again.want("errmsg .*Error.*")
			again.want("log .*Error.*")

			// Without the end of the process, in rounds, and before a dump.
			r.act(peer, "dump", r.images("running"), pid, "leave_running").want("dump 0 0")
			v.advance()
			r.act(peer, "pre_dump", r.images("pre"), pid, "track_mem").want(`pre_dump (0 0|-52 \d+)`)
			v.advance()

			// A callback that refuses ends the dump, not the process.
			refused := r.act(peer, "dump", r.images("refused"), pid, "refuse=pre-dump")
			refused.want("dump -77 0")
			refused.want("errmsg the notification callback refused with -77")
			v.advance()
			v.kill()

			missing := r.act(peer, "dump", r.images("missing"), pid)
			missing.want("dump -52 3")
			r.act(peer, "restore", r.images("empty")).want(`restore -52 \d+`)
			r.act(peer, "features", r.dir).want("features [01] 1 1 0")
			r.act(peer, "cpuinfo", r.images("cpu")).want("cpuinfo 0 0")
		})
	}
}

// TestRealRestoreChild restores a process as the caller's child, which waits for it.
func TestRealRestoreChild(t *testing.T) {
	r := newReal(t)
	v := r.victim("counter")
	r.act("bin", "dump", r.images("img"), "pid="+strconv.Itoa(v.pid)).want("dump 0 0")
	v.gone()
	for _, peer := range []string{"bin", "sk:/nonexistent"} {
		out := r.act(peer, "restore_child_kill", r.images("img"))
		out.want(fmt.Sprintf("restore_child_kill %d 0", v.pid))
		out.want("waited 9")
	}
}

// TestRealSelfDump lets processes dump themselves; the restored copy returns from the same call with 1.
func TestRealSelfDump(t *testing.T) {
	r := newReal(t)
	socket := r.startService()
	for _, tt := range []struct {
		name, peer string
		args       []string
		survives   bool
	}{
		{name: "bin", peer: "bin"},
		{name: "sk", peer: "sk:" + socket},
		{name: "fd", peer: "fd:" + socket},
		{name: "running", peer: "bin", args: []string{"leave_running"}, survives: true},
		{name: "subreaper", peer: "bin", args: []string{"subreaper"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := r.in(t)
			img, out := r.images("img"), filepath.Join(r.dir, "out")
			cmd := with(command(t, r.prog, append([]string{tt.peer, "self", img, "out=" + out, "log=dump.log"}, tt.args...)...),
				libraryPath(r.lib))
			cmd.Dir = r.dir
			err := cmd.Run()
			want := "before\n"
			if !tt.survives {
				if got := cmd.ProcessState.String(); got != "signal: killed" {
					log, _ := os.ReadFile(filepath.Join(img, "dump.log"))
					b, _ := os.ReadFile(out)
					t.Fatalf("the process that dumped itself ended with %s (%v), wrote %s\n%s", got, err, b, tail(string(log)))
				}
			} else {
				want += "self 0 0 children 0 \n"
			}
			cores, err := filepath.Glob(filepath.Join(img, "core-*.img"))
			must(t, err)
			if len(cores) != 1 {
				t.Errorf("the images hold %d processes (%v), not one", len(cores), cores)
			}
			restored := r.act("bin", "restore_child", img, "log=restore.log")
			restored.want(fmt.Sprintf("waited %d", 17<<8))
			want += "self 1 0 children 0 \n"
			got, err := os.ReadFile(out)
			must(t, err)
			if string(got) != want {
				t.Errorf("the process wrote %q, not %q", got, want)
			}
		})
	}
}

// TestRealNamespaces uses the library in mount and pid namespaces of its own.
func TestRealNamespaces(t *testing.T) {
	r := newReal(t)
	socket := r.startService()

	// With a CRIU of its own in there: all that happens is in those namespaces.
	script := `set -e
		%[1]s victim %[2]s/inner & pid=$!
		while ! [ -s %[2]s/inner ]; do sleep 0.01; done
		%[1]s bin dump %[3]s pid=$pid log=dump.log | tee %[2]s/said
		grep -q "dump 0 0" %[2]s/said
		wait $pid || echo dumped $?
		%[1]s bin restore_child_kill %[3]s log=restore.log
		%[1]s bin self %[4]s out=%[2]s/self log=dump.log </dev/null || echo self $?
		%[1]s bin restore_child %[4]s log=restore.log`
	out := output{t, run(t, with(command(t, "unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c",
		fmt.Sprintf(script, r.prog, r.dir, r.images("inner-img"), r.images("self-img"))), libraryPath(r.lib)))}
	out.want("dump 0 0")
	out.want("dumped 137")
	out.want(`restore_child_kill [1-9]\d* 0`)
	out.want("waited 9")
	out.want("self 137")
	out.want(fmt.Sprintf("waited %d", 17<<8))

	// With a service outside: pids are those of the service, descriptors the caller's.
	for _, peer := range []string{"sk:" + socket, "fd:" + socket} {
		v := r.victim("outer-" + peer[:2])
		img := r.images("outer-img-" + peer[:2])
		inside := func(args ...string) output {
			return output{t, run(t, with(command(t, "unshare", append([]string{"-m", "-p", "-f", "--mount-proc", "--kill-child", r.prog}, args...)...),
				libraryPath(r.lib)))}
		}
		inside(peer, "dump", img, "pid="+strconv.Itoa(v.pid)).want("dump 0 0")
		v.gone()
		inside(peer, "restore", img).want(fmt.Sprintf("restore %d 0", v.pid))
		v.advance()
		v.kill()
	}
}

// TestRealOptions shows that options reach CRIU and do what they say.
func TestRealOptions(t *testing.T) {
	r := newReal(t)

	t.Run("config file", func(t *testing.T) {
		r := r.in(t)
		config := filepath.Join(r.dir, "criu.conf")
		must(t, os.WriteFile(config, []byte("log-file from-config.log\n"), 0o644))
		img := r.images("config-img")
		r.act("bin", "dump", img, "pid=999999", "config="+config).want("dump -52 3")
		if _, err := os.Stat(filepath.Join(img, "from-config.log")); err != nil {
			t.Errorf("the log is not where the configuration file says: %v", err)
		}
	})

	t.Run("join_ns", func(t *testing.T) {
		r := r.in(t)
		v := r.victim("joining")
		img := r.images("join-img")
		r.act("bin", "dump", img, "pid="+strconv.Itoa(v.pid)).want("dump 0 0")
		v.gone()
		// A uts namespace that somebody else holds.
		holder := exec.Command("unshare", "-u", "cat")
		stdin, err := holder.StdinPipe()
		must(t, err)
		must(t, holder.Start())
		t.Cleanup(func() {
			stdin.Close()
			_ = holder.Wait()
		})
		ns := fmt.Sprintf("/proc/%d/ns/uts", holder.Process.Pid)
		own, err := os.Readlink("/proc/self/ns/uts")
		must(t, err)
		testkit.WaitFor(t, "the namespace is there", func() bool {
			l, err := os.Readlink(ns)
			return err == nil && l != own
		})
		want, err := os.Readlink(ns)
		must(t, err)
		r.act("bin", "restore", img, "join=uts:"+ns).want(fmt.Sprintf("restore %d 0", v.pid))
		got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/uts", v.pid))
		must(t, err)
		if got != want {
			t.Errorf("restored into %s, not %s", got, want)
		}
		v.kill()
	})

	t.Run("bad descriptor", func(t *testing.T) {
		r := r.in(t)
		out := r.act("bin", "dump", r.images("bad"), "pid=1", "dirfd=99")
		out.want(`dump -52 \d+`)
		out.want("errmsg .+")
	})

	t.Run("images_dir", func(t *testing.T) {
		r := r.in(t)
		v := r.victim("by-path")
		img := r.images("path-img")
		r.act("bin", "dump", "/nonexistent", "pid="+strconv.Itoa(v.pid), "images_dir="+img).want(`dump (0 0|-52 \d+)`)
	})

	t.Run("page server", func(t *testing.T) {
		r := r.in(t)
		out := r.act("bin", "page_server", r.images("ps"))
		out.want("child 1 0 port 1")
		// CRIU's handler of SIGCHLD may have waited for the server first, and then WAIT_PID is refused.
		out.want("wait_pid (0 0 status 1|-22 0 status 0)")
		out.want("background 1 port 1")
		out.want("left 1 port 1")
		out.want("children 0")
	})

	t.Run("no criu", func(t *testing.T) {
		r := r.in(t)
		t.Setenv("PATH", "/nonexistent")
		out := r.act("bin", "check", r.dir)
		out.want("check -70 2")
		out.want("errmsg cannot run criu: No such file or directory")
	})
}

// TestRealIterations dumps in rounds on one connection, where the kernel can track memory.
func TestRealIterations(t *testing.T) {
	testkit.Need(t, testkit.SoftDirty)
	r := newReal(t)
	v := r.victim("counter")
	r.act("bin", "iters", r.dir, "rounds=3", "pid="+strconv.Itoa(v.pid)).want("iters 0 0")
	v.gone()
	for i := range 4 {
		if _, err := os.Stat(filepath.Join(r.dir, strconv.Itoa(i), "inventory.img")); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
	}
	r.act("bin", "restore_child_kill", filepath.Join(r.dir, "3")).want("waited 9")
}
