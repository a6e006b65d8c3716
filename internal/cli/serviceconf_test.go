package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/proc"
	"stasis.example/internal/testkit"
)

// The built-in engine answers behind swrk, and takes from configuration files what the request does not say; a file that the
// request names counts more than both.
func TestSwrkBuiltin(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	stasis, home := buildStasis(t), t.TempDir()
	config := func(name, text string) string {
		t.Helper()
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "HOME=") || strings.HasPrefix(v, engineVariable) || strings.HasPrefix(v, configVariable)
	})
	swrk := &criu.Swrk{Path: stasis, Env: append(env, "HOME="+home)}
	dump := func(o criu.DumpOptions) (string, error) {
		t.Helper()
		v := testkit.StartVictim(t, "counter")
		o.PID, o.ImagesDir, o.LeaveRunning = v.Pid, t.TempDir(), true
		_, err := criu.New(swrk).Dump(t.Context(), o)
		v.MustVerify()
		entries, _ := filepath.Glob(filepath.Join(o.ImagesDir, "*.log"))
		for i := range entries {
			entries[i] = filepath.Base(entries[i])
		}
		return strings.Join(entries, " "), err
	}
	config(userConfig, "log-file default.log\nshell-job\n")
	over := config("over.conf", "log-file over.log\n")
	for _, tc := range []struct {
		name string
		o    criu.DumpOptions
		logs string
	}{
		{"a default", criu.DumpOptions{}, "default.log"},
		{"a request", criu.DumpOptions{LogFile: "request.log"}, "request.log"},
		{"a file that the request names", criu.DumpOptions{LogFile: "request.log", ConfigFile: over}, "over.log"},
		{"a file that is not there", criu.DumpOptions{LogFile: "request.log", ConfigFile: over + ".no"}, "request.log"},
	} {
		if logs, err := dump(tc.o); err != nil || logs != tc.logs {
			t.Errorf("%s: %v, the logs are %q, want %q", tc.name, err, logs, tc.logs)
		}
	}
	config("bad.conf", "no-such-option\n")
	if _, err := dump(criu.DumpOptions{ConfigFile: filepath.Join(home, "bad.conf")}); err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("a file with something unknown: %v", err)
	}
	// A broken default ends the program before any request.
	for _, text := range []string{"no-such-option\n", "action-script /bin/true\n"} {
		config(userConfig, text)
		cmd := exec.Command(stasis, "swrk", "0")
		cmd.Env = swrk.Env
		if output, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != exitFailure || !strings.Contains(string(output), strings.Fields(text)[0]) {
			t.Errorf("with %q: %v, %s", text, err, output)
		}
	}
}

// startService starts a service of the built-in engine, and returns its pid and a client.
func startService(t *testing.T, args ...string) (pid int, client *criu.Client) {
	t.Helper()
	stasis, dir := buildStasis(t), t.TempDir()
	ready, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command(stasis, append([]string{"service", "-W", dir, "-o", "log", "--status-fd", "3"}, args...)...)
	cmd.ExtraFiles = []*os.File{readyW}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readyW.Close()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	return cmd.Process.Pid, criu.New(&criu.Service{Path: filepath.Join(dir, criu.DefaultSocket)})
}

// The service's own options of requests reach its workers.
func TestServiceBuiltin(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	_, client := startService(t, "-v4")
	v := testkit.StartVictim(t, "counter")
	images := t.TempDir()
	if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: images, LeaveRunning: true, LogFile: "dump.log"}); err != nil {
		t.Fatal(err)
	}
	v.MustVerify()
	text, err := os.ReadFile(filepath.Join(images, "dump.log"))
	if err != nil || !strings.Contains(string(text), "looked at from outside") {
		t.Errorf("the log, which was to be of level 4: %v, %s", err, text)
	}
	for _, tc := range []rpc.ReqType{rpc.ReqWaitPID, rpc.ReqPageServer, rpc.ReqPreDump} {
		resp, err := client.Do(t.Context(), &rpc.Req{Type: tc, Opts: &rpc.Opts{ImagesDirFD: -1, PID: new(int32(v.Pid))}}, nil)
		if err == nil || !strings.Contains(err.Error(), tc.String()) {
			t.Errorf("%v: %+v, %v; want a refusal by name", tc, resp, err)
		}
	}
}

// soakVariable is how many times each of 50 clients dumps and restores its process; without it there are ten, once.
const soakVariable = "SERVER_TEST_SOAK"

// held is what a process has taken of the machine.
type held struct{ memory, files, threads int } // memory in KiB

func holdings(t *testing.T, pid int) (h held) {
	t.Helper()
	d := proc.New(os.DirFS("/proc")).Process(pid)
	status, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	fds, err := d.FDs()
	if err != nil {
		t.Fatal(err)
	}
	return held{int(status.VmRSS / 1024), len(fds), status.Threads}
}

// Many clients at once, again and again, each with a process of its own: none is lost, and the service takes no more of the
// machine than after the first round.
func TestServiceStaysAsItIs(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	clients, rounds := 10, 1
	if n, err := strconv.Atoi(os.Getenv(soakVariable)); err == nil {
		clients, rounds = 50, n
	}
	pid, client := startService(t)
	victims := make([]*testkit.Victim, clients)
	for i := range victims {
		victims[i] = testkit.StartVictim(t, "counter")
	}
	var before held
	for n := range rounds + 1 {
		var all sync.WaitGroup
		for _, v := range victims {
			dir := t.TempDir()
			all.Go(func() {
				if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
					t.Error(err)
					return
				}
				if _, err := v.Wait(); err != nil {
					t.Error(err)
					return
				}
				if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: dir}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
		for _, v := range victims {
			v.Restored()
		}
		if n == 0 {
			before = holdings(t, pid) // with all threads that so many clients take
		}
	}
	for _, v := range victims {
		v.MustVerify()
	}
	var after held
	waiting := 4 * max(2, runtime.NumCPU()) // descriptors of workers that wait, of which there may have been fewer
	testkit.WaitFor(t, "the service to be as it was", func() bool {
		after = holdings(t, pid)
		return after.files <= before.files+waiting
	})
	t.Logf("%d cycles: the service had %d KiB, %d files, %d threads, and has %d KiB, %d files, %d threads",
		rounds*clients, before.memory, before.files, before.threads, after.memory, after.files, after.threads)
	const slack = 8 << 10
	if after.memory > before.memory+slack || after.threads > before.threads+clients {
		t.Errorf("the service has grown from %+v to %+v", before, after)
	}
}
