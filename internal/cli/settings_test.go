package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// settingsOf reads a command line, with configuration files where their texts are given.
func settingsOf(t *testing.T, system, user, env, named string, args ...string) (*settings, error) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		if text == "" {
			return filepath.Join(dir, "missing")
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	variables := environment{"HOME=" + filepath.Join(dir, "home")}
	write("home/"+userConfig, user)
	if env != "" {
		variables = append(variables, configVariable+"="+write("env.conf", env))
	}
	if named != "" {
		args = append([]string{"--config", write("named.conf", named)}, args...)
	}
	fs := newFlagSet()
	line, err := readCommandLine(fs, args, variables)
	if err != nil {
		return nil, err
	}
	return readSettings(fs, line, write("system.conf", system), variables, true)
}

// TestFlagsToRequest: what each flag puts into the request.
func TestFlagsToRequest(t *testing.T) {
	on, off := new(true), new(false)
	for _, test := range []struct {
		args string
		want rpc.Opts
	}{
		{"", rpc.Opts{}},
		{"--tcp-established", rpc.Opts{TCPEstablished: on}},
		{"--no-tcp-established", rpc.Opts{TCPEstablished: off}},
		{"--tcp-established --no-tcp-e", rpc.Opts{TCPEstablished: off}},
		{"-j -l", rpc.Opts{ShellJob: on, FileLocks: on}},
		{"-R", rpc.Opts{LeaveRunning: on}},
		{"-R -s", rpc.Opts{LeaveStopped: on}},
		{"-s -R", rpc.Opts{LeaveRunning: on}},
		{"--timeout 7", rpc.Opts{Timeout: new(uint32(7))}},
		{"--ghost-limit 2M", rpc.Opts{GhostLimit: new(uint32(2 << 20))}},
		{"--external mnt[/a]:b --external tty[1:2]", rpc.Opts{External: []string{"mnt[/a]:b", "tty[1:2]"}}},
		{"--manage-cgroups", rpc.Opts{ManageCgroupsMode: new(rpc.CgroupModeSoft)}},
		{"--manage-cgroups=ignore", rpc.Opts{ManageCgroupsMode: new(rpc.CgroupModeIgnore)}},
		{"--cgroup-root /a --cgroup-root cpu:/b", rpc.Opts{CgRoot: []*rpc.CgroupRoot{{Path: "/a"}, {Ctrl: new("cpu"), Path: "/b"}}}},
		{"--network-lock nftables", rpc.Opts{NetworkLock: new(rpc.NetworkLockNftables)}},
		{"--pre-dump-mode=read", rpc.Opts{PreDumpMode: new(rpc.PreDumpModeRead)}},
		{"--cpu-cap", rpc.Opts{CPUCap: new(uint32(capAll | capImage))}},
		{"--cpu-cap=none", rpc.Opts{CPUCap: new(uint32(0))}},
		{"--cpu-cap=none --cpu-cap=cpu", rpc.Opts{CPUCap: new(uint32(capCPU | capImage))}},
		{"--empty-ns net", rpc.Opts{EmptyNS: new(uint32(0x40000000))}},
		{"-J user:7,1,2", rpc.Opts{JoinNS: []*rpc.JoinNamespace{{NS: "user", NSFile: "7", ExtraOpt: new("1,2")}}}},
		{"--veth-pair a=b", rpc.Opts{Veths: []*rpc.VethPair{{IfIn: "a", IfOut: "b"}}}},
		{"-M a:b -M auto", rpc.Opts{ExtMnt: []*rpc.ExtMountMap{{Key: "a", Val: "b"}}, AutoExtMnt: on}},
		{"-x", rpc.Opts{ExtUnixSk: on}},
		{"-x12,13", rpc.Opts{ExtUnixSk: on, UnixSkIno: []*rpc.UnixSk{{Inode: 12}, {Inode: 13}}}},
		{"--enable-external-sharing --enable-external-masters", rpc.Opts{ExtSharing: on, ExtMasters: on}},
		{"--prev-images-dir ../1", rpc.Opts{ParentImg: new("../1")}},
		{"--lazy-pages --tls --tls-cert x", rpc.Opts{LazyPages: on, TLS: on, TLSCert: new("x")}},
		{"--skip-in-flight --freeze-cgroup /c", rpc.Opts{TCPSkipInFlight: on, FreezeCgroup: new("/c")}},
		{"-c --compress-block 64K", rpc.Opts{Compress: new(uint32(1)), CompressBlockSize: new(uint32(64 << 10))}},
		{"--unprivileged", rpc.Opts{Unprivileged: on}},
	} {
		s, err := settingsOf(t, "", "", "", "", append([]string{"dump"}, strings.Fields(test.args)...)...)
		if err != nil {
			t.Errorf("%s: %v", test.args, err)
			continue
		}
		if diff := cmp.Diff(test.want, s.opts); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", test.args, diff)
		}
	}
}

// TestFlagsToSettings: what the command line keeps for itself.
func TestFlagsToSettings(t *testing.T) {
	s, err := settingsOf(t, "", "", "", "", "--engine", "service:/s", "restore", "-D", "i", "-W", "w", "-o", "l", "-t", "42", "-d", "-S",
		"--pidfile", "p", "--action-script", "a", "--action-script", "b", "--page-server", "--address", "h", "--port", "27", "--ps-socket", "5",
		"--status-fd=6", "--inherit-fd", "fd[7]:x", "--log-pid", "--no-ghost-fiemap", "-L", `/p "q"`, "--extra", "--feature", "f", "--no-extra", "--json", "-v", "-v")
	if err != nil {
		t.Fatal(err)
	}
	got := []any{s.imagesDir, s.workDir, s.logFile, s.pid, s.detach, s.sibling, s.pidfile, s.scripts, s.pageServer, s.address, s.port, *s.psSocket,
		*s.statusFD, s.inherit, s.engine, s.json, s.level, sortedKeys(s.program)}
	want := []any{"i", "w", "l", int32(42), true, true, "p", []string{"a", "b"}, true, "h", 27, 5, 6, []inherited{{7, "x"}}, engine{engineService, "/s"}, true, 4, []string{"--feature"}}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("setting %d is %v, want %v", i, got[i], want[i])
		}
	}
	dir := t.TempDir()
	r := &run{settings: s}
	text, err := r.childConfiguration(dir)
	if want := "log-pid\nno-ghost-fiemap\nlibdir " + dir + "/libdir2\n"; text != want || err != nil {
		t.Errorf("the child is told %q, %v; want %q", text, err, want)
	}
	if target, err := os.Readlink(dir + "/libdir2"); target != `/p "q"` || err != nil {
		t.Errorf("the link leads to %q, %v", target, err)
	}
}

// TestSources: the order of the files, each over the one before, the command line over all.
func TestSources(t *testing.T) {
	args := []string{"dump"}
	s, err := settingsOf(t, "timeout 1\ntls", "timeout 2\nshell-job", "timeout 3\nno-tls", "", args...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rpc.Opts{Timeout: new(uint32(3)), TLS: new(false), ShellJob: new(true)}, s.opts); diff != "" {
		t.Errorf("system, user, variable: (-want +got)\n%s", diff)
	}
	s, err = settingsOf(t, "", "timeout 2", "timeout 3", "timeout 4", append(args, "--timeout", "5")...)
	if err != nil {
		t.Fatal(err)
	}
	if *s.opts.Timeout != 5 {
		t.Errorf("the command line says 5, it came to %d", *s.opts.Timeout)
	}
	s, err = settingsOf(t, "", "shell-job", "file-locks", "timeout 4", args...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rpc.Opts{Timeout: new(uint32(4)), FileLocks: new(true)}, s.opts); diff != "" {
		t.Errorf("--config turns off the default files, not that of the variable: (-want +got)\n%s", diff)
	}
	s, err = settingsOf(t, "", "shell-job", "file-locks", "", append(args, "--no-default-config")...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rpc.Opts{FileLocks: new(true)}, s.opts); diff != "" {
		t.Errorf("--no-default-config: (-want +got)\n%s", diff)
	}
	if len(s.program) != 0 {
		t.Errorf("without a file of the system's, --no-default-config needs nothing: %v", s.program)
	}
}

// TestSystemConfig: what the peer reads by itself is not sent a second time where it would count twice.
func TestSystemConfig(t *testing.T) {
	system := "external a\ntls\naction-script /s\npidfile p\nlog-pid\nlibdir /x\ncgroup-root /c\ninherit-fd fd[3]:x\nskip-mnt /m"
	s, err := settingsOf(t, system, "external b\naction-script /t", "", "", "--engine", "criu", "restore", "--external", "c")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rpc.Opts{TLS: new(true), External: []string{"b", "c"}}, s.opts); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !slices.Equal(s.scripts, []string{"/t"}) || s.pidfile != "" || len(s.child) != 0 || len(s.inherit) != 0 {
		t.Errorf("scripts %q, pidfile %q, child %v, inherited %v", s.scripts, s.pidfile, s.child, s.inherit)
	}
	// The RPC cannot keep the peer from reading it.
	s, err = settingsOf(t, system, "", "", "", "--engine", "criu", "restore", "--no-default-config")
	if err != nil || len(s.program) != 1 {
		t.Errorf("--no-default-config is left to the RPC: %v, %v", s.program, err)
	}
	// The built-in engine reads no files: all that they say is in the request.
	s, err = settingsOf(t, system, "external b\naction-script /t", "", "", "restore", "--external", "c")
	if err != nil || !slices.Equal(s.opts.External, []string{"a", "b", "c"}) || !slices.Equal(s.scripts, []string{"/s", "/t"}) || s.pidfile != "p" || len(s.inherit) != 1 {
		t.Errorf("external %q, scripts %q, pidfile %q, inherited %v, %v", s.opts.External, s.scripts, s.pidfile, s.inherit, err)
	}
	s, err = settingsOf(t, system, "", "", "", "restore", "--no-default-config")
	if err != nil || len(s.program) != 0 || s.pidfile != "" || len(s.scripts) != 0 {
		t.Errorf("--no-default-config: pidfile %q, scripts %q, %v, %v", s.pidfile, s.scripts, s.program, err)
	}
}

func TestWordsForCRIU(t *testing.T) {
	fs := newFlagSet()
	args := strings.Fields("--engine criu:/c dump --json -t 42 -dS --quiet --exec-cmd -- x --json")
	line, err := readCommandLine(fs, args, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(line.words(), " "), "dump -t 42 -dS --exec-cmd -- x --json"; got != want {
		t.Errorf("criu is given %q, want %q", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	e := environment{"A=1", "B=2", "A=3", "C"}
	if got := e.get("A"); got != "3" {
		t.Errorf("A is %q", got)
	}
	if got, want := e.with(map[string]string{"B": "9"}, "A"), (environment{"C", "B=9"}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseEngine(t *testing.T) {
	for text, want := range map[string]engine{
		"builtin": {engineBuiltin, ""}, "criu": {engineCRIU, ""}, "criu:/a:b": {engineCRIU, "/a:b"}, "service": {engineService, ""}, "service:/s": {engineService, "/s"},
	} {
		got, err := parseEngine(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%q is written %q", text, got)
		}
	}
	for _, text := range []string{"", "criu:", "foo", "service:", "CRIU"} {
		if got, err := parseEngine(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// TestExecCRIU: what only the program can do is done by it, with criu's words.
func TestExecCRIU(t *testing.T) {
	env := []string{"STASIS_ENGINE=criu:/c/criu", "HOME=/nonexistent"}
	for _, test := range []struct{ args, want string }{
		{"check --feature uffd", "exec /c/criu: criu check --feature uffd"},
		{"check --all", "exec /c/criu: criu check --all"},
		{"--engine criu:/d lazy-pages -D x --port 1 --page-server", "exec /d: criu lazy-pages -D x --port 1 --page-server"},
		{"dedup -D x", "exec /c/criu: criu dedup -D x"},
		{"restore -d -S --quiet", "exec /c/criu: criu restore -d -S"},
		{"dump -t 1 --close 0", "exec /c/criu: criu dump -t 1 --close 0"},
	} {
		status, out, errs := invoke(t, env, append([]string{"stasis"}, strings.Fields(test.args)...)...)
		if status != 0 || strings.TrimSpace(out) != test.want || errs != "" {
			t.Errorf("%s: status %d, %q, %q; want %q", test.args, status, out, errs, test.want)
		}
	}
}

// TestFindCRIU: the program does not take itself for its engine, under whatever name it is in PATH.
func TestFindCRIU(t *testing.T) {
	ours, theirs, other := programs(t), t.TempDir(), t.TempDir()
	for _, path := range []string{filepath.Join(theirs, "criu"), filepath.Join(other, "criu-dev")} {
		if err := testkit.WriteProgram(path, []byte("#!/bin/sh\n")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(other, "criu"), []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	path := strings.Join([]string{ours, "/nonexistent", other, theirs}, ":")
	for _, test := range []struct{ path, search, want string }{
		{"", path, filepath.Join(theirs, "criu")},
		{"criu-dev", path, filepath.Join(other, "criu-dev")},
		{"/x/criu", path, "/x/criu"},
		{"", ours + ":" + other, ""},
		{"", "", ""},
	} {
		got, err := findCRIU(test.path, test.search)
		if got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%q in %q is %q, %v; want %q", test.path, test.search, got, err, test.want)
		}
	}
}

func FuzzCommandLine(f *testing.F) {
	for _, s := range []string{"dump -t 42 -v4", "restore --cpu-cap=none,^cpu -J net:1", "--engine service:x check", "-verbosity=0 -x1,2", "--cgroup-root=: --ghost-limit 4G"} {
		f.Add(s)
	}
	fs := newFlagSet()
	f.Fuzz(func(t *testing.T, text string) {
		line, err := readCommandLine(fs, strings.Split(text, " "), nil)
		if err != nil {
			return
		}
		s := newSettings()
		if err := s.apply(fs, line.items, "", false); err != nil {
			return
		}
		if s.level < 0 {
			t.Fatalf("%q makes the level %d", text, s.level)
		}
		// Only values that the request can carry come out.
		if _, err := readCommandLine(fs, line.words(), nil); err != nil {
			t.Fatalf("%q was read, but not without our own flags: %v", text, err)
		}
	})
}
