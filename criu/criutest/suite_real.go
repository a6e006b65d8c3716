package criutest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/internal/testkit"
)

func realTests() []suiteTest {
	return []suiteTest{
		{"information", 0, realInformation},
		{"dump and restore", 0, realDumpRestore},
		{"dump and run on", 0, realLeaveRunning},
		{"no such process", 0, realNoProcess},
		{"pid in use", 0, realPIDInUse},
		{"missing images", 0, realMissingImages},
		{"log", Explains, realLog},
		{"notifications", Notifies, realNotifications},
		{"refusal", Notifies, realRefusal},
		{"cancelled dump", Notifies | Cancels, realCancelledDump},
		{"cancelled restore", Notifies | Cancels, realCancelledRestore},
		{"restore as child", Owns, realRestoreChild},
		{"session", 0, realSession},
		{"concurrency", 0, realConcurrency},
		{"options are the caller's", 0, realOptions},
	}
}

func realInformation(t *testing.T, target Target) {
	needRoot(t)
	c := target.Real(t)
	ctx := context.Background()
	if v, err := c.Version(ctx); err != nil || v.Major == 0 {
		t.Errorf("version: %+v, %v", v, err)
	}
	f, err := c.Features(ctx)
	if err != nil {
		t.Errorf("features: %v", err)
	}
	again, err := c.Features(ctx)
	if err != nil || f != again {
		t.Errorf("features, again: %+v, %v; before %+v", again, err, f)
	}
	if err := c.Check(ctx, criu.CheckOptions{}); err != nil {
		t.Errorf("check: %v", err)
	}
}

func realDumpRestore(t *testing.T, target Target) {
	needRoot(t)
	c, v, dir := target.Real(t), startVictim(t), imagesDir(t)
	for range 2 { // what was restored can be dumped
		result, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if result.Restored {
			t.Error("the dump says that it was restored")
		}
		if _, err := v.Wait(); err != nil { // of a restored one the status is not ours to have
			t.Fatal(err)
		}
		testGone(t, v)
		r, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		v.restored(t, r.PID)
	}
}

// testGone waits until the pid of a victim that has ended is free: whoever is its parent may be about to wait for it.
func testGone(t *testing.T, v *victim) {
	t.Helper()
	testkit.WaitFor(t, "the dumped victim's pid to be free", func() bool {
		_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(v.Pid)))
		return err != nil
	})
}

func realLeaveRunning(t *testing.T, target Target) {
	needRoot(t)
	c, v := target.Real(t), startVictim(t)
	dir, err := os.Open(imagesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDirFile: dir, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	v.lives(t)
	if _, err := os.Stat(filepath.Join(dir.Name(), "inventory.img")); err != nil {
		t.Error(err)
	}
}

func realNoProcess(t *testing.T, target Target) {
	needRoot(t)
	v := startVictim(t)
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err := target.Real(t).Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: imagesDir(t)})
	wantError(t, err, criu.ErrNoProcess, syscall.EBADE, syscall.ESRCH)
	if !errors.Is(err, criu.ErrFailed) {
		t.Errorf("%q is not a failure", err)
	}
}

func realPIDInUse(t *testing.T, target Target) {
	needRoot(t)
	c, v, dir := target.Real(t), startVictim(t), imagesDir(t)
	if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir})
	wantError(t, err, criu.ErrPIDInUse, syscall.EBADE, syscall.EEXIST)
	v.lives(t)
}

func realMissingImages(t *testing.T, target Target) {
	needRoot(t)
	c := target.Real(t)
	_, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: imagesDir(t)})
	wantError(t, err, criu.ErrFailed, syscall.EBADE)
	v := startVictim(t)
	missing := filepath.Join(imagesDir(t), "missing")
	_, err = c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: missing})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("dump into a missing directory: %v", err)
	}
	v.lives(t)
}

// realLog: the reason that is in the log is in the error.
func realLog(t *testing.T, target Target) {
	needRoot(t)
	dir, work := imagesDir(t), t.TempDir()
	_, err := target.Real(t).Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir, WorkDir: work, LogFile: "restore.log"})
	e, ok := errors.AsType[*criu.Error](err)
	if !ok {
		t.Fatalf("error %v", err)
	}
	if e.LogFile != filepath.Join(work, "restore.log") || len(e.Log) == 0 || !strings.Contains(err.Error(), e.Log[0]) {
		t.Errorf("error %q with the lines %q of the log %q", err, e.Log, e.LogFile)
	}
	if _, err := os.Stat(e.LogFile); err != nil {
		t.Error(err)
	}
}

func realNotifications(t *testing.T, target Target) {
	needRoot(t)
	c, v, dir := target.Real(t), startVictim(t), imagesDir(t)
	var names []string
	pids := map[string]int{}
	notify := func(_ context.Context, ev *criu.Event) error {
		names = append(names, ev.Name)
		pids[ev.Name] = ev.PID
		return nil
	}
	if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, Notify: notify}); err != nil {
		t.Fatal(err)
	}
	v.dumped(t)
	wantInOrder(t, names, "pre-dump", "post-dump")
	names = nil
	r, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir, Notify: notify})
	if err != nil {
		t.Fatal(err)
	}
	v.restored(t, r.PID)
	wantInOrder(t, names, "pre-restore", "post-restore", "pre-resume", "post-resume")
	if pids["post-restore"] != v.Pid {
		t.Errorf("post-restore came with the pid %d, want %d", pids["post-restore"], v.Pid)
	}
}

func wantInOrder(t *testing.T, got []string, want ...string) {
	t.Helper()
	rest := got
	for _, name := range want {
		i := slices.Index(rest, name)
		if i < 0 {
			t.Errorf("notifications %v, want among them, in this order, %v", got, want)
			return
		}
		rest = rest[i+1:]
	}
}

// realRefusal: a refused dump leaves the victim as it was, a refused restore nothing.
func realRefusal(t *testing.T, target Target) {
	needRoot(t)
	mine := errors.New("not today")
	at := func(stage string) func(context.Context, *criu.Event) error {
		return func(_ context.Context, ev *criu.Event) error {
			if ev.Name == stage {
				return mine
			}
			return nil
		}
	}
	c, v, dir := target.Real(t), startVictim(t), imagesDir(t)
	for _, stage := range []string{"pre-dump", "query-ext-files", "post-dump"} {
		_, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, Notify: at(stage)})
		wantError(t, err, criu.ErrRefused, syscall.EBADE)
		if !errors.Is(err, mine) {
			t.Errorf("%s: error %q does not wrap the callback's", stage, err)
		}
		v.lives(t)
	}
	if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	v.dumped(t)
	for _, stage := range []string{"pre-restore", "post-restore"} {
		_, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir, Notify: at(stage)})
		wantError(t, err, criu.ErrRefused, syscall.EBADE)
		testGone(t, v)
	}
	r, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	v.restored(t, r.PID)
}

// cancelAt returns a callback that ends the context in a stage, and waits for that.
func cancelAt(stage string, cancel func()) func(context.Context, *criu.Event) error {
	return func(ctx context.Context, ev *criu.Event) error {
		if ev.Name == stage {
			cancel()
			<-ctx.Done()
		}
		return nil
	}
}

func realCancelledDump(t *testing.T, target Target) {
	needRoot(t)
	c, v := target.Real(t), startVictim(t)
	for _, stage := range []string{"pre-dump", "query-ext-files", "post-dump"} {
		ctx, cancel := context.WithCancel(context.Background())
		within(t, "a cancelled dump", func() {
			_, err := c.Dump(ctx, criu.DumpOptions{PID: v.Pid, ImagesDir: imagesDir(t), Notify: cancelAt(stage, cancel)})
			wantError(t, err, criu.ErrFailed, syscall.EBADE)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: error %q does not wrap the context's", stage, err)
			}
		})
		cancel()
		v.lives(t)
	}
}

func realCancelledRestore(t *testing.T, target Target) {
	needRoot(t)
	c, v, dir := target.Real(t), startVictim(t), imagesDir(t)
	if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	v.dumped(t)
	for _, stage := range []string{"pre-restore", "post-restore"} {
		ctx, cancel := context.WithCancel(context.Background())
		within(t, "a cancelled restore", func() {
			_, err := c.Restore(ctx, criu.RestoreOptions{ImagesDir: dir, Notify: cancelAt(stage, cancel)})
			wantError(t, err, criu.ErrFailed, syscall.EBADE)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: error %q does not wrap the context's", stage, err)
			}
		})
		cancel()
		testGone(t, v)
	}
	r, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	v.restored(t, r.PID)
}

func realRestoreChild(t *testing.T, target Target) {
	needRoot(t)
	c := full(target.Real(t))
	if c == nil {
		return
	}
	v, dir := startVictim(t), imagesDir(t)
	if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	v.dumped(t)
	p, err := c.RestoreChild(context.Background(), criu.RestoreOptions{ImagesDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	v.restored(t, p.PID)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with an ended context: %v", err)
	}
	v.lives(t)
	v.tell(t, "q5")
	state, err := p.Wait(context.Background())
	if err != nil || state.ExitCode() != 5 {
		t.Errorf("the restored child ended with %v, %v; want status 5", state, err)
	}
}

func realSession(t *testing.T, target Target) {
	needRoot(t)
	c := full(target.Real(t))
	if c == nil {
		return
	}
	ctx := context.Background()
	dir := imagesDir(t)
	s := c.Session()
	defer s.Close()
	for range 3 {
		if _, err := s.Version(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Features(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CPUInfoDump(ctx, criu.CPUInfoOptions{ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cpuinfo.img")); err != nil {
		t.Error(err)
	}
	if err := s.CPUInfoCheck(ctx, criu.CPUInfoOptions{ImagesDir: dir}); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func realConcurrency(t *testing.T, target Target) {
	needRoot(t)
	c := target.Real(t)
	victims := []*victim{startVictim(t), startVictim(t)}
	var wg sync.WaitGroup
	for _, v := range victims {
		dir := imagesDir(t)
		wg.Go(func() {
			if _, err := c.Dump(context.Background(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir, LeaveRunning: true}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := c.Version(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, v := range victims {
		v.lives(t)
	}
}

func realOptions(t *testing.T, target Target) {
	needRoot(t)
	v := startVictim(t)
	o := criu.DumpOptions{PID: v.Pid, ImagesDir: imagesDir(t), LeaveRunning: true, LogLevel: criu.LogDebug, LogFile: "dump.log"}
	check := unchanged(t, o)
	if _, err := target.Real(t).Dump(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	check()
	if text, err := os.ReadFile(filepath.Join(o.ImagesDir, "dump.log")); err != nil || !strings.Contains(string(text), "Dumping finished successfully") {
		t.Errorf("the log: %v, %d bytes", err, len(text))
	}
}
