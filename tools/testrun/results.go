package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// outcome is how a test ended; of several runs the highest counts.
type outcome int

const (
	skipped outcome = iota
	passed
	failed
)

// A testID names a test. The fuzzing of a target counts beside the run of its seeds.
type testID struct {
	pkg, test string
	fuzzing   bool
}

func (id testID) String() string {
	name := strings.TrimSpace(id.pkg + " " + id.test)
	if id.fuzzing {
		name += " (fuzzing)"
	}
	return name
}

// results is what is known of all tests so far.
type results struct {
	out     io.Writer
	started time.Time

	outcomes map[testID]outcome
	reasons  map[testID]string   // why a test was skipped, where that counts
	output   map[testID][]string // of the tests that are running
	problems []string            // what failed beside tests
}

func newResults(out io.Writer) *results {
	return &results{
		out:      out,
		started:  time.Now(),
		outcomes: make(map[testID]outcome),
		reasons:  make(map[testID]string),
		output:   make(map[testID][]string),
	}
}

// stage announces what comes next.
func (r *results) stage(what string) {
	fmt.Fprintf(r.out, "\n== %s (%.0f s since the start)\n", what, time.Since(r.started).Seconds())
}

// record takes in one event. Output is held back until the test it belongs to has ended, and printed if it failed; a
// package's own is printed.
func (r *results) record(e event, skipsCount bool) {
	id := testID{pkg: e.Package, test: e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.problems = append(r.problems, "build of "+e.ImportPath)
	case "output":
		r.addOutput(id, e.Output)
	case "pass", "fail", "skip":
		r.end(id, e.Action, skipsCount)
	}
}

func (r *results) addOutput(id testID, text string) {
	for _, noise := range []string{"=== RUN", "=== PAUSE", "=== CONT", "=== NAME"} {
		if strings.HasPrefix(text, noise) {
			return
		}
	}
	if id.test != "" {
		r.output[id] = append(r.output[id], text)
		return
	}
	// Without -v, go test does not print this line, which every test program ends with; and of packages without tests
	// there is no need to read.
	if text != "PASS\n" && !strings.HasSuffix(text, "[no test files]\n") {
		fmt.Fprint(r.out, text)
	}
}

func (r *results) end(id testID, action string, skipsCount bool) {
	text := strings.Join(r.output[id], "")
	delete(r.output, id)
	switch action {
	case "pass":
		r.settle(id, passed)
	case "fail":
		fmt.Fprint(r.out, text)
		r.settle(id, failed)
	case "skip":
		if skipsCount && id.test != "" {
			r.settle(id, skipped)
			r.reasons[id] = skipReason(text)
		}
	}
}

// settle notes how a test ended. A package is no test: its failure is that of one of its tests, or else a problem of
// its own, such as a leak found after the tests.
func (r *results) settle(id testID, o outcome) {
	if id.test == "" {
		if o == failed && !r.hasFailed(id.pkg) {
			r.problems = append(r.problems, "package "+id.pkg)
		}
		return
	}
	r.outcomes[id] = max(r.outcomes[id], o)
}

func (r *results) hasFailed(pkg string) bool {
	for id, o := range r.outcomes {
		if id.pkg == pkg && o == failed {
			return true
		}
	}
	return false
}

// skipReason finds what a skipped test said: the line with the place it was said at.
func skipReason(output string) string {
	for line := range strings.Lines(output) {
		if _, reason, found := strings.Cut(line, ".go:"); found {
			if _, reason, found = strings.Cut(reason, ": "); found {
				return strings.TrimSpace(reason)
			}
		}
	}
	return "no reason given"
}

// survivors records the processes that outlived the tests; they are dead by now.
func (r *results) survivors(found []string, err error) error {
	for _, process := range found {
		r.problems = append(r.problems, "outlived the tests: "+process)
	}
	return err
}

// conclude prints what was skipped and what failed, and the closing line. It returns an error if the run has failed.
func (r *results) conclude(must bool) error {
	var count [failed + 1]int
	var skips []string
	unexcused := 0
	for _, id := range slices.SortedFunc(maps.Keys(r.outcomes), func(a, b testID) int { return strings.Compare(a.String(), b.String()) }) {
		o := r.outcomes[id]
		count[o]++
		switch {
		case o == skipped:
			note := ""
			if must && !strings.Contains(r.reasons[id], "; optional: ") {
				note = "MUST RUN HERE: "
				unexcused++
			}
			skips = append(skips, fmt.Sprintf("%s%s: %s", note, id, r.reasons[id]))
		case o == failed:
			r.problems = append(r.problems, id.String())
		}
	}
	fmt.Fprintf(r.out, "\n== done (%.0f s)\n", time.Since(r.started).Seconds())
	printList(r.out, "skipped:", skips)
	printList(r.out, "failed:", r.problems)
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", count[passed], count[failed], count[skipped])
	switch {
	case len(r.problems) > 0:
		return errors.New("tests failed")
	case unexcused > 0:
		return fmt.Errorf("%d tests were skipped that must run here", unexcused)
	case count[passed] == 0:
		return errors.New("no test ran")
	}
	return nil
}

func printList(out io.Writer, heading string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(out, heading)
	for _, line := range lines {
		fmt.Fprintln(out, "  "+line)
	}
}
