package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

// TestExplain: the sentences that failures are told in.
func TestExplain(t *testing.T) {
	const limit = "rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted"
	for _, test := range []struct {
		name string
		err  error
		want []string
	}{
		{"an error of our own", errors.New("no luck"), []string{"stasis: no luck"}},
		{"no process", &criu.Error{Op: "dump", PID: 1 << 29, Kind: criu.ErrFailed, Errno: unix.ESRCH, Log: []string{"Unable to detach", "Dumping FAILED."}}, []string{
			"stasis: cannot dump process 536870912: there is no process 536870912", "  It has ended, or its pid is that of another pid namespace.",
			"  For the whole story: -v4 --log-file FILE."}},
		{"a process that is there", &criu.Error{Op: "dump", PID: 1 << 29, Kind: criu.ErrFailed, Errno: unix.EPERM, LogFile: "/l", Err: errors.New("process 536870912 is traced by process 7"), Log: []string{"Unable to detach from 536870912: No such process", "Dumping FAILED."}}, []string{
			"stasis: cannot dump process 536870912: process 536870912 is traced by process 7", "  criu: Unable to detach from 536870912: No such process", "  The log is /l."}},
		{"a process that only we see", &criu.Error{Op: "dump", PID: os.Getpid(), Kind: criu.ErrFailed, Errno: unix.ESRCH, LogFile: "/l"}, []string{
			fmt.Sprintf("stasis: cannot dump process %d: the peer finds no process %[1]d, or cannot stop it", os.Getpid()), "  The log is /l.",
			"  There is one here, with this pid: the peer may not trace it (ptrace(2)), or sees another pid namespace."}},
		{"a zombie", &criu.Error{Op: "dump", PID: 1 << 29, Kind: criu.ErrFailed, Errno: unix.ESRCH, LogFile: "/l", Err: errors.New("process 536870912 has ended"), Log: []string{"Unable to detach", "Dumping FAILED."}}, []string{
			"stasis: cannot dump process 536870912: process 536870912 has ended", "  criu: Unable to detach", "  The log is /l."}},
		{"a peer that dies at work", &criu.Error{Op: "dump", Stage: "query-ext-files", PID: 1 << 29, Resource: "/bin/criu", Kind: criu.ErrTransport, LogFile: "/l", Err: errors.New("/bin/criu: the peer ended without an answer")}, []string{
			"stasis: cannot dump process 536870912: /bin/criu: the peer ended without an answer", "  The log is /l."}},
		{"no peer", &criu.Error{Op: "dump", Stage: "receive", PID: 1 << 29, Resource: "/bin/true", Kind: criu.ErrTransport, Err: errors.New("/bin/true: the peer ended without an answer")}, []string{
			"stasis: cannot dump process 536870912: /bin/true: the peer ended without an answer", "  Is /bin/true CRIU, and does `/bin/true check` work?"}},
		{"a pid that is taken", &criu.Error{Op: "restore", Kind: criu.ErrFailed, Errno: unix.EEXIST, LogFile: "/l", Err: errors.New("pid 7 is that of a running process (sh)"), Log: []string{"Can't fork for 7: File exists"}}, []string{
			"stasis: cannot restore the tree: pid 7 is that of a running process (sh)", "  criu: Can't fork for 7: File exists", "  The log is /l.",
			"  A restored process gets its old pid: end the process that has it now, or restore in a new pid namespace."}},
		{"the log tells", &criu.Error{Op: "restore", Kind: criu.ErrFailed, Message: limit, LogFile: "/d/restore.log", Log: []string{"Can't open file x", "Can't open file x", "Unable to open fd=0", "Restoring FAILED."}}, []string{
			"stasis: cannot restore the tree: Can't open file x", "  criu: Unable to open fd=0", "  The log is /d/restore.log."}},
		{"only the message tells", &criu.Error{Op: "restore", Kind: criu.ErrFailed, Message: "Error (criu/x.c:1): it is broken\n"}, []string{"stasis: cannot restore the tree: it is broken"}},
		{"nothing tells", &criu.Error{Op: "restore", Kind: criu.ErrFailed, Message: limit}, []string{"stasis: cannot restore the tree: the peer reported failure"}},
		{"a full disk", &criu.Error{Op: "pre-dump", PID: 1 << 29, Kind: criu.ErrFailed, Errno: unix.ENOSPC, Resource: "/d", Err: errors.New("full"), Log: []string{"bfd: No space"}}, []string{
			"stasis: cannot pre-dump process 536870912: the file system of /d is full", "  criu: bfd: No space",
			"  Make room there, or choose another directory with --images-dir.", "  For the whole story: -v4 --log-file FILE."}},
		{"a shell job", &criu.Error{Op: "dump", PID: 1 << 29, Kind: criu.ErrFailed, LogFile: "/l", Log: []string{"A session leader of 5 is outside of its pid namespace; consider using --shell-job"}}, []string{
			"stasis: cannot dump process 536870912: A session leader of 5 is outside of its pid namespace; consider using --shell-job", "  The log is /l.",
			"  The tree belongs to a shell's session: say --shell-job, at the restore too."}},
		{"a refusal", fmt.Errorf("x: %w", &criu.Error{Op: "restore", Kind: criu.ErrRefused, LogFile: "/l", Err: errors.New("the pidfile is there already")}), []string{
			"stasis: cannot restore the tree: the pidfile is there already", "  The log is /l."}},
	} {
		r := &run{Program: &Program{}, name: "stasis", settings: newSettings()}
		r.settings.engine.kind = engineCRIU
		if got := strings.Join(r.explain(test.err), "\n"); got != strings.Join(test.want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", test.name, got, strings.Join(test.want, "\n"))
		}
	}
}

func TestErrorLines(t *testing.T) {
	log := `(00.000000) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.001000) Warn  (criu/x.c:1): not this
(00.002000)     42: Error (criu/files.c:12): first: with (brackets): here
pie: 42: Error (restorer): second
some text that mentions, a good way behind its beginning, an Error (criu/far.c:1): behind its fortieth letter
(00.003000) Error (criu/files.c:13): third
`
	want := "first: with (brackets): here|second|third"
	if got := strings.Join(errorLines(log), "|"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := errorLines("(00.000000) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: x\n"); len(got) != 1 {
		t.Errorf("the only line is left out: %q", got)
	}
}

func testJob(t *testing.T, s *settings) *job {
	t.Helper()
	dir, err := openDirectory(t.TempDir(), "work")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	r := &run{Program: &Program{Stdin: null, Stdout: null, Stderr: null}, settings: s, name: "stasis", env: environment{"PATH=" + os.Getenv("PATH"), "KEPT=1"}}
	return &job{run: r, images: dir, work: dir, log: &logSink{stream: null}}
}

func TestPidfile(t *testing.T) {
	s := newSettings()
	s.pidfile = "it.pid"
	j := testJob(t, s)
	st := &stages{job: j, pidfile: true}
	for _, ev := range []criu.Event{{Name: "pre-restore"}, {Name: "setup-namespaces", PID: 42}, {Name: "post-restore", PID: 42}} {
		if err := st.notify(t.Context(), &ev); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(j.work.Name(), "it.pid")
	text, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(text) != "42" || info.Mode() != 0o600 {
		t.Errorf("%q, %v, %v, %v", text, info, err, statErr)
	}
	again := &stages{job: j, pidfile: true}
	err = again.notify(t.Context(), &criu.Event{Name: "post-restore", PID: 43})
	if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "it.pid") {
		t.Errorf("a pidfile that is there: %v", err)
	}
	again.undo()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("what another wrote is removed: %v", err)
	}
	st.undo()
	if _, err := os.Stat(path); err == nil {
		t.Error("a pidfile without its process is left")
	}
}

func TestScriptsOfStages(t *testing.T) {
	dir := t.TempDir()
	seen := filepath.Join(dir, "seen")
	s := newSettings()
	for _, name := range []string{"first", "second", "fails"} {
		text := "#!/bin/sh\necho " + name + " $CRTOOLS_SCRIPT_ACTION $CRTOOLS_INIT_PID $KEPT $(test -d $CRTOOLS_IMAGE_DIR/. && echo dir) >> " + seen + "\n"
		if name == "fails" {
			text += "[ $CRTOOLS_SCRIPT_ACTION != post-dump ] && [ $CRTOOLS_SCRIPT_ACTION != post-resume ]\n"
		}
		path := filepath.Join(dir, name)
		if err := testkit.WriteProgram(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		s.scripts = append(s.scripts, path)
	}
	st := &stages{job: testJob(t, s), pid: 7}
	for _, test := range []struct {
		stage string
		fails bool
	}{{"pre-dump", false}, {"query-ext-files", false}, {"post-dump", true}, {"post-resume", false}} {
		err := st.notify(t.Context(), &criu.Event{Name: test.stage})
		if (err != nil) != test.fails {
			t.Errorf("%s: %v", test.stage, err)
		}
		if err != nil && !(strings.Contains(err.Error(), "fails") && strings.Contains(err.Error(), "post-dump")) {
			t.Errorf("script and stage are not named: %v", err)
		}
	}
	text, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, stage := range []string{"pre-dump", "post-dump", "post-resume"} {
		for _, name := range []string{"fails", "second", "first"} { // the last one given first
			fmt.Fprintf(&want, "%s %s 7 1 dir\n", name, stage)
		}
	}
	if string(text) != want.String() {
		t.Errorf("the scripts saw\n%s\nwant\n%s", text, want.String())
	}
}

func TestNothingToNotify(t *testing.T) {
	st := &stages{job: testJob(t, newSettings())}
	if st.callback() != nil {
		t.Error("notifications are asked for, with nothing to do")
	}
}

func TestUntilSignal(t *testing.T) {
	ctx, stop := untilSignal(t.Context())
	defer stop()
	if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if i, ok := errors.AsType[interrupted](context.Cause(ctx)); !ok || i.signal != unix.SIGHUP {
		t.Errorf("the cause is %v", context.Cause(ctx))
	}
	r := &run{Program: &Program{Stderr: os.NewFile(^uintptr(0), "nowhere")}, name: "stasis"}
	if got := r.fail(fmt.Errorf("x: %w", context.Cause(ctx))); got != 128+int(unix.SIGHUP) {
		t.Errorf("the status is %d", got)
	}
}
