package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
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

// The service's own options of requests reach its workers.
func TestServiceBuiltin(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	stasis, dir := buildStasis(t), t.TempDir()
	ready, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command(stasis, "service", "-W", dir, "-o", "log", "-v4", "--status-fd", "3")
	cmd.ExtraFiles = []*os.File{readyW}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readyW.Close()
	defer func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	client := criu.New(&criu.Service{Path: filepath.Join(dir, criu.DefaultSocket)})
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
