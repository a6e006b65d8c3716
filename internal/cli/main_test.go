package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"stasis.example/internal/testkit"
)

// TestMain runs the tests, or, called by the name stasis or criu, the program itself: what the tests start is this
// test program under those names.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "stasis", "criu":
		runProgram()
	}
	if len(os.Args) > 1 && os.Args[1] == counterAction {
		runProgram() // the demo starts the file that it runs from
	}
	testkit.Main(m)
}

func runProgram() {
	p := &Program{Args: os.Args, Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Exec: syscall.Exec}
	p.rules = withoutRules(os.Getenv(rulesOff))
	os.Exit(p.Run(context.Background()))
}

// programs makes a directory with this test program under the names stasis and criu.
func programs(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"stasis", "criu"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestScripts runs what needs no CRIU and no rights: help, mistakes, configuration files, completions.
func TestScripts(t *testing.T) {
	bin := programs(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("BIN", bin)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("IMAGES", goldenImages(t, e.WorkDir))
			e.Setenv("STASIS_ENGINE", "criu:/nonexistent/criu")
			e.Setenv("CRIU_CONFIG_FILE", "")
			return nil
		},
	})
}

// goldenImages copies images that were made by CRIU, with files of holes in place of the pages, which are not kept.
func goldenImages(t testing.TB, to string) string {
	t.Helper()
	to = filepath.Join(to, "images")
	for _, name := range []string{"family", "job"} {
		from := os.DirFS(filepath.Join(testkit.SourceRoot(), "engine", "internal", "plan", "testdata", "criu", name))
		if err := os.CopyFS(filepath.Join(to, name), from); err != nil {
			t.Fatal(err)
		}
		maps, err := fs.Glob(from, "pagemap-*.img")
		if err != nil {
			t.Fatal(err)
		}
		for i := range maps {
			pages := filepath.Join(to, name, fmt.Sprintf("pages-%d.img", i+1))
			if err := os.WriteFile(pages, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(pages, 1<<30); err != nil {
				t.Fatal(err)
			}
		}
	}
	return to
}

// invoke runs the program in this process, with its output in files, and returns what it printed.
func invoke(t testing.TB, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	out, errs := open("out"), open("err")
	status = runWith(t, env, null, out, errs, args...)
	read := func(f *os.File) string {
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	return status, read(out), read(errs)
}

// runWith runs the program in this process. Executing another program is only written down.
func runWith(t testing.TB, env []string, in, out, errs *os.File, args ...string) (status int) {
	t.Helper()
	return runIn(t.Context(), t, env, in, out, errs, args...)
}

func runIn(ctx context.Context, t testing.TB, env []string, in, out, errs *os.File, args ...string) (status int) {
	t.Helper()
	p := &Program{Args: args, Environ: env, Stdin: in, Stdout: out, Stderr: errs,
		SystemConfig: filepath.Join(t.TempDir(), "no-such-config"),
		Exec: func(path string, argv, env []string) error {
			out.WriteString("exec " + path + ": " + strings.Join(argv, " ") + "\n")
			return nil
		}}
	return p.Run(ctx)
}
