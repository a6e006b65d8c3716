package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// A goTest is one run of `go test`.
type goTest struct {
	dir  string   // where it runs, the root of the checkout if empty
	env  []string // added to the environment
	args []string
	// skipsCount says whether a test that is skipped in this run was skipped for good.
	skipsCount bool
}

// An event is a line that `go test -json` prints (go doc test2json, go doc cmd/go buildjson).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build events
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// run runs go test and records what it says. Failed tests are results, not errors; an error means that there is no
// telling what the tests would have said.
func (g goTest) run(ctx context.Context, results *results) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, g.args...)...)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), g.env...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failed, readErr := results.read(stdout, g.skipsCount)
	err = cmd.Wait()
	if readErr != nil {
		return readErr
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok && failed {
		return nil // said by the events already
	}
	if err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

// read records the events of one run, and reports whether one of them was a failure.
func (r *results) read(events io.Reader, skipsCount bool) (failed bool, err error) {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if jsonErr := json.Unmarshal(line, &e); jsonErr != nil {
				fmt.Fprintf(r.out, "%s", line) // go prints some complaints as they are
			} else {
				r.record(e, skipsCount)
				failed = failed || e.Action == "fail" || e.Action == "build-fail"
			}
		}
		if errors.Is(err, io.EOF) {
			return failed, nil
		}
		if err != nil {
			return failed, err
		}
	}
}
