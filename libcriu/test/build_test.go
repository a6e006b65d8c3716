package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// deadline is how long a program of the tests may take; the slowest need a tenth of it.
const deadline = 2 * time.Minute

// library builds the library where it is not up to date, and returns the directory that holds it.
func library(t testing.TB) string {
	t.Helper()
	testkit.Need(t, testkit.Program("gcc"), testkit.Program("make"))
	run(t, command(t, "make", "--no-print-directory", "-C", source()))
	return filepath.Join(testkit.SourceRoot(), "bin")
}

// source is the directory of the library's source.
func source() string { return filepath.Join(testkit.SourceRoot(), "libcriu") }

// include returns a directory that holds the library's headers as they are installed.
func include(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "criu"), 0o755))
	for _, name := range []string{"criu.h", "version.h"} {
		must(t, os.Symlink(filepath.Join(source(), name), filepath.Join(dir, "criu", name)))
	}
	return dir
}

// program compiles a C program of testdata against the library and returns its path. Further arguments go to the
// compiler.
func program(t testing.TB, name string, args ...string) string {
	t.Helper()
	lib, inc, out := library(t), include(t), filepath.Join(t.TempDir(), strings.TrimSuffix(name, ".c"))
	run(t, command(t, "gcc", slices.Concat([]string{"-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-g",
		"-I" + inc, "-I" + filepath.Join(inc, "criu"), "-o", out, filepath.Join("testdata", name)}, args,
		[]string{"-L" + lib, "-lcriu", "-pthread", "-ldl"})...))
	return out
}

// command returns a command that is killed when the test's time is up.
func command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// with returns the command with variables added to its environment.
func with(cmd *exec.Cmd, env ...string) *exec.Cmd {
	cmd.Env = append(cmd.Environ(), env...)
	return cmd
}

// run runs a command and returns what it printed to standard output; the test fails when the command does.
func run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", strings.Join(cmd.Args, " "), err, tail(stdout.String()), tail(stderr.String()))
	}
	return stdout.String()
}

// tail is the end of a long text.
func tail(s string) string {
	const limit = 8000
	if len(s) > limit {
		return "…" + s[len(s)-limit:]
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// libraryPath is the environment variable that makes programs load the library in dir.
func libraryPath(dir string) string { return fmt.Sprintf("LD_LIBRARY_PATH=%s", dir) }
