package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/image"

	"stasis.example/internal/testkit"
)

// withEngines runs a test with CRIU and with the built-in engine.
func withEngines(t *testing.T, test func(t *testing.T, env []string)) {
	t.Helper()
	for _, engine := range []string{"criu", "builtin"} {
		t.Run(engine, func(t *testing.T) {
			env := realEnv(t, engine)
			if engine == "criu" {
				env = criuEnv(t)
			}
			test(t, env)
		})
	}
}

func TestJSON(t *testing.T) {
	needReal(t)
	withEngines(t, testJSON)
}

func TestForeground(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU, testkit.VictimProgram("exitcode"))
	withEngines(t, testForeground)
}

func TestForegroundSignals(t *testing.T) {
	needReal(t)
	withEngines(t, testForegroundSignals)
}

func TestExecCmd(t *testing.T) {
	needReal(t)
	withEngines(t, testExecCmd)
}

func TestDemo(t *testing.T) {
	needReal(t)
	withEngines(t, testDemo)
}

func TestSibling(t *testing.T) {
	needReal(t)
	withEngines(t, testSibling)
}

func TestTerminal(t *testing.T) {
	needReal(t)
	withEngines(t, testTerminal)
}

func TestInterrupt(t *testing.T) {
	needReal(t)
	withEngines(t, testInterrupt)
}

// TestLeftStopped: what was dumped or restored to be left stopped is, and goes on when it is let.
func TestLeftStopped(t *testing.T) {
	needReal(t)
	withEngines(t, func(t *testing.T, env []string) {
		v := testkit.StartVictim(t, "counter")
		stopped := func() { // CRIU does not wait for it
			t.Helper()
			testkit.WaitFor(t, "the victim to be stopped", func() bool { return strings.Trim(v.State(), "T") == "" })
		}
		if status, _, errs := invoke(t, env, "stasis", "dump", "-s", "-D", t.TempDir(), "-t", fmt.Sprint(v.Pid)); status != 0 {
			t.Fatalf("dump: status %d\n%s", status, errs)
		}
		stopped()
		if err := v.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		dir := dumped(t, env, v)
		if status, _, errs := invoke(t, env, "stasis", "restore", "-d", "-s", "-D", dir); status != 0 {
			t.Fatalf("restore: status %d\n%s", status, errs)
		}
		v.Restored()
		stopped()
		if err := v.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		v.MustVerify()
	})
}

// TestStatistics: --display-stats prints what is in the files of statistics, in the same words, and the pages are those of
// the images.
func TestStatistics(t *testing.T) {
	needReal(t)
	number := regexp.MustCompile(`\d+ (us|\(0x[0-9a-f]+\))`)
	var words []string
	withEngines(t, func(t *testing.T, env []string) {
		v := testkit.StartVictim(t, "counter")
		dir := t.TempDir()
		status, dumpOut, errs := invoke(t, env, "stasis", "dump", "--display-stats", "-D", dir, "-t", fmt.Sprint(v.Pid))
		if status != 0 {
			t.Fatalf("dump: status %d\n%s", status, errs)
		}
		v.Wait()
		status, restoreOut, errs := invoke(t, env, "stasis", "restore", "-d", "--display-stats", "-D", dir)
		if status != 0 {
			t.Fatalf("restore: status %d\n%s", status, errs)
		}
		v.Restored()
		v.MustVerify()
		words = append(words, number.ReplaceAllString(dumpOut+restoreOut, "N $1"))
		words[len(words)-1] = regexp.MustCompile(`\(0x[0-9a-f]+\)`).ReplaceAllString(words[len(words)-1], "(N)")
		dumpStats, err := criu.ReadDumpStats(dir)
		if err != nil {
			t.Fatal(err)
		}
		restoreStats, err := criu.ReadRestoreStats(dir)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("Memory pages written: %d (%#[1]x)\n", dumpStats.PagesWritten); !strings.Contains(dumpOut, want) {
			t.Errorf("%q is not in\n%s", want, dumpOut)
		}
		if want := fmt.Sprintf("Pages restored: %d (%#[1]x)\n", restoreStats.PagesRestored); !strings.Contains(restoreOut, want) {
			t.Errorf("%q is not in\n%s", want, restoreOut)
		}
		if pages := pagesIn(t, dir); dumpStats.PagesWritten != pages {
			t.Errorf("%d pages were written, the images have %d", dumpStats.PagesWritten, pages)
		}
		if restoreStats.PagesRestored == 0 || restoreStats.PagesRestored > dumpStats.PagesWritten {
			t.Errorf("%d pages were restored of %d", restoreStats.PagesRestored, dumpStats.PagesWritten)
		}
	})
	if len(words) == 2 && words[0] != words[1] {
		t.Errorf("CRIU prints\n%s\nthe built-in engine\n%s", words[0], words[1])
	}
}

// pagesIn counts the pages in a directory of images.
func pagesIn(t *testing.T, path string) (pages uint64) {
	t.Helper()
	dir, err := image.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	files, err := filepath.Glob(filepath.Join(path, "pages-*.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		pages += uint64(info.Size()) / uint64(os.Getpagesize())
	}
	return pages
}

// TestTimeout: the built-in engine ends an operation that takes too long, and takes back what it did. (CRIU's time-out is for
// the first part of a dump only.)
func TestTimeout(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	env := realEnv(t, "builtin")
	v := testkit.StartVictim(t, "counter")
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := testkit.WriteProgram(script, []byte("#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-dump -a $CRTOOLS_SCRIPT_ACTION != post-restore ] || exec sleep 2\n")); err != nil {
		t.Fatal(err)
	}
	late := func(args ...string) {
		t.Helper()
		began := time.Now()
		status, _, errs := invoke(t, env, append([]string{"stasis"}, args...)...)
		if status != 1 || !strings.Contains(errs, "took longer than --timeout allows, 1 s") {
			t.Errorf("%v: status %d after %v\n%s", args, status, time.Since(began), errs)
		}
	}
	late("dump", "--timeout", "1", "-D", dir, "-t", fmt.Sprint(v.Pid), "--action-script", script)
	if v.Gone() {
		t.Fatal("the victim is gone")
	}
	images := dumped(t, env, v)
	late("restore", "-d", "--timeout", "1", "-D", images, "--action-script", script)
	if err := unix.Kill(v.Pid, 0); err == nil {
		t.Errorf("process %d is left of a restore that took too long", v.Pid)
	}
	if status, _, errs := invoke(t, env, "stasis", "restore", "-d", "-D", images); status != 0 {
		t.Fatalf("restore: status %d\n%s", status, errs)
	}
	v.Restored()
	v.MustVerify()
}
