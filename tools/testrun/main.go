// Command testrun runs all tests, as `make test` and CI do:
//
//  1. the pure tests of every package under the race detector,
//  2. all tests of every package, as root and against a real CRIU where there is one, without the detector,
//  3. the tests of the modules under test/ that are modules of their own,
//  4. every fuzz target for some seconds.
//
// It prints go test's lines for each package, the output of what failed, what was skipped and why, and ends with one
// line that counts the tests. A test that ran in more than one of the runs counts once, and passed if it passed in one
// and failed in none. The exit status is 1 if a test failed, if a process outlived the tests, or if, where everything
// must run (CI, or STASIS_TEST_MUST), a test was skipped that the list in internal/testkit does not excuse.
//
// It runs from the root of the checkout: go run ./tools/testrun.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/testkit"
)

func main() {
	fuzz := flag.Bool("fuzz", true, "run the fuzz targets")
	race := flag.Bool("race", true, "run the pure tests under the race detector")
	timeout := flag.Duration("timeout", 15*time.Minute, "how long the tests of one package may take")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./tools/testrun [flags] [package ...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, packages, *race, *fuzz, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, packages []string, race, fuzz bool, timeout time.Duration) error {
	// Processes that a crashed test program leaves behind become ours and are found at the end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_CHILD_SUBREAPER): %w", err)
	}
	if err := testkit.CloseInheritedOnExec(); err != nil {
		return err
	}
	results := newResults(os.Stdout)
	flags := []string{"-count=1", "-timeout=" + timeout.String()}
	if race {
		results.stage("pure tests, with the race detector")
		pure := goTest{env: []string{testkit.EnvPure + "=1"}, args: append(append(flags, "-race"), packages...), skipsCount: false}
		if err := pure.run(ctx, results); err != nil {
			return err
		}
	}
	results.stage("all tests")
	if err := (goTest{args: append(flags, packages...), skipsCount: true}).run(ctx, results); err != nil {
		return err
	}
	modules, err := filepath.Glob("test/*/go.mod")
	if err != nil {
		return err
	}
	for _, module := range modules {
		dir := filepath.Dir(module)
		results.stage("the module " + dir)
		if err := (goTest{dir: dir, args: append(flags, "./..."), skipsCount: true}).run(ctx, results); err != nil {
			return err
		}
	}
	if fuzz {
		if err := runFuzz(ctx, results, packages); err != nil {
			return err
		}
	}
	if err := results.survivors(testkit.KillDescendants()); err != nil {
		return err
	}
	return results.conclude(testkit.MustRun())
}
