package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// A fuzzTarget is a function FuzzXxx.
type fuzzTarget struct{ pkg, name string }

var fuzzDeclaration = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// fuzzTargets finds the fuzz targets of the packages by their declarations, which is quicker than building each
// package's tests to ask for a list.
func fuzzTargets(ctx context.Context, packages []string) ([]fuzzTarget, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, packages...)...)
	cmd.Stderr = os.Stderr
	list, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var targets []fuzzTarget
	for decoder := json.NewDecoder(list); ; {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		for _, file := range append(p.TestGoFiles, p.XTestGoFiles...) {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				return nil, err
			}
			for _, match := range fuzzDeclaration.FindAllSubmatch(source, -1) {
				targets = append(targets, fuzzTarget{p.ImportPath, string(match[1])})
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	return targets, nil
}

// fuzzInputs is how many inputs a target gets: a second of most, some seconds of the slowest. They are counted, not timed:
// up to Go 1.26 a run that its time ends may be taken for one that failed (go.dev/issue/75804).
const fuzzInputs = 5000

// runFuzz runs every target for some seconds. A counterexample is left where go test puts it, under the package's testdata/fuzz.
func runFuzz(ctx context.Context, results *results, packages []string) error {
	targets, err := fuzzTargets(ctx, packages)
	if err != nil || len(targets) == 0 {
		return err
	}
	results.stage(fmt.Sprintf("fuzzing %d targets, %d inputs each", len(targets), fuzzInputs))
	for _, target := range targets {
		cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-fuzz=^"+target.name+"$", fmt.Sprintf("-fuzztime=%dx", fuzzInputs), "-fuzzminimizetime=100x", target.pkg)
		output, err := cmd.CombinedOutput()
		id := testID{pkg: target.pkg, test: target.name, fuzzing: true}
		if err != nil {
			fmt.Fprintf(results.out, "%s\n%v\n", output, err)
			results.settle(id, failed)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			continue
		}
		results.settle(id, passed)
		fmt.Fprintf(results.out, "ok  \t%s\t%s\n", target.pkg, target.name)
	}
	return nil
}
