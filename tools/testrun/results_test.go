package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What go test -json says of a package with a test of each outcome, and of one that cannot be built.
const events = `{"Action":"start","Package":"m/p"}
{"Action":"run","Package":"m/p","Test":"TestGood"}
{"Action":"output","Package":"m/p","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"m/p","Test":"TestGood","Output":"    p_test.go:5: chatter\n"}
{"Action":"pass","Package":"m/p","Test":"TestGood","Elapsed":0}
{"Action":"output","Package":"m/p","Test":"TestBad","Output":"=== RUN   TestBad\n"}
{"Action":"output","Package":"m/p","Test":"TestBad","Output":"    p_test.go:6: it is broken\n"}
{"Action":"output","Package":"m/p","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"m/p","Test":"TestBad","Elapsed":0}
{"Action":"output","Package":"m/p","Test":"TestPoor","Output":"    p_test.go:7: needs gold: there is none (dig)\n"}
{"Action":"skip","Package":"m/p","Test":"TestPoor","Elapsed":0}
{"Action":"output","Package":"m/p","Output":"FAIL\tm/p\t0.1s\n"}
{"Action":"fail","Package":"m/p","Elapsed":0.1}
{"ImportPath":"m/q","Action":"build-output","Output":"q.go:1: what is this\n"}
{"ImportPath":"m/q","Action":"build-fail"}
{"Action":"fail","Package":"m/q","Elapsed":0,"FailedBuild":"m/q"}
go: a complaint that is no event
`

func TestRead(t *testing.T) {
	var out strings.Builder
	r := newResults(&out)
	failedAny, err := r.read(strings.NewReader(events), true)
	if !failedAny || err != nil {
		t.Errorf("read: %v, %v", failedAny, err)
	}
	want := map[testID]outcome{{pkg: "m/p", test: "TestGood"}: passed, {pkg: "m/p", test: "TestBad"}: failed, {pkg: "m/p", test: "TestPoor"}: skipped}
	for id, o := range want {
		if got, found := r.outcomes[id]; !found || got != o {
			t.Errorf("%v: %v, %v, want %v", id, got, found, o)
		}
	}
	if len(r.outcomes) != len(want) {
		t.Errorf("outcomes: %v", r.outcomes)
	}
	err = r.conclude(true)
	if err == nil {
		t.Error("a run with failures is no failure")
	}
	for _, part := range []string{
		"p_test.go:6: it is broken", "FAIL\tm/p\t0.1s\n", "q.go:1: what is this\n", "go: a complaint that is no event\n",
		"  MUST RUN HERE: m/p TestPoor: needs gold: there is none (dig)\n", "  build of m/q\n", "  package m/q\n", "  m/p TestBad\n",
	} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the output lacks %q", part)
		}
	}
	if strings.Contains(out.String(), "chatter") || strings.Contains(out.String(), "=== RUN") {
		t.Error("the output has that of tests that passed")
	}
	if !strings.HasSuffix(out.String(), "\n1 passed, 1 failed, 1 skipped\n") {
		t.Errorf("the last line is not the count:\n%s", &out)
	}
}

func TestConclusions(t *testing.T) {
	for _, tc := range []struct {
		name   string
		events string
		skips  bool // whether skips count
		must   bool
		want   string // in the error; empty for none
		last   string
	}{
		{name: "all well", events: `{"Action":"pass","Package":"p","Test":"T"}`, last: "1 passed, 0 failed, 0 skipped"},
		{name: "nothing", want: "no test ran", last: "0 passed, 0 failed, 0 skipped"},
		{
			name: "passed in the second run", skips: true, must: true, last: "1 passed, 0 failed, 0 skipped",
			events: `{"Action":"skip","Package":"p","Test":"T"}` + "\n" + `{"Action":"pass","Package":"p","Test":"T"}`,
		},
		{
			name: "failed in the first run", want: "tests failed", last: "0 passed, 1 failed, 0 skipped",
			events: `{"Action":"fail","Package":"p","Test":"T"}` + "\n" + `{"Action":"pass","Package":"p","Test":"T"}`,
		},
		{
			name: "leak", want: "tests failed", last: "1 passed, 0 failed, 0 skipped",
			events: `{"Action":"pass","Package":"p","Test":"T"}` + "\n" + `{"Action":"fail","Package":"p"}`,
		},
		{
			name: "skipped", skips: true, last: "1 passed, 0 failed, 1 skipped",
			events: `{"Action":"skip","Package":"p","Test":"S"}` + "\n" + `{"Action":"pass","Package":"p","Test":"T"}`,
		},
		{
			name: "skipped where it must run", skips: true, must: true, want: "1 tests were skipped", last: "1 passed, 0 failed, 1 skipped",
			events: `{"Action":"skip","Package":"p","Test":"S"}` + "\n" + `{"Action":"pass","Package":"p","Test":"T"}`,
		},
		{
			name: "excused", skips: true, must: true, last: "1 passed, 0 failed, 1 skipped",
			events: `{"Action":"output","Package":"p","Test":"S","Output":"    p_test.go:1: needs x: no; optional: why\n"}` + "\n" +
				`{"Action":"skip","Package":"p","Test":"S"}` + "\n" + `{"Action":"pass","Package":"p","Test":"T"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			r := newResults(&out)
			if _, err := r.read(strings.NewReader(tc.events), tc.skips); err != nil {
				t.Fatal(err)
			}
			err := r.conclude(tc.must)
			if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("concludes with %v, want %q", err, tc.want)
			}
			if !strings.HasSuffix(out.String(), "\n"+tc.last+"\n") {
				t.Errorf("output, want %q at its end:\n%s", tc.last, &out)
			}
		})
	}
}

func TestSurvivorsFailTheRun(t *testing.T) {
	r := newResults(&strings.Builder{})
	r.settle(testID{pkg: "p", test: "T"}, passed)
	if err := r.survivors([]string{"process 1"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.conclude(false); err == nil {
		t.Error("a run that left a process is no failure")
	}
	if err := r.survivors(nil, os.ErrInvalid); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("an error in looking for survivors became %v", err)
	}
}

func TestFuzzTargets(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":      "module m.example\n\ngo 1.26\n",
		"p.go":        "package p\n\nfunc FuzzNot() {}\n",
		"p_test.go":   "package p\n\nimport \"testing\"\n\nfunc FuzzOne(f *testing.F) {}\n\nfunc TestFuzzNot(t *testing.T) {}\n",
		"x_test.go":   "package p_test\n\nimport \"testing\"\n\nfunc FuzzTwo(f *testing.F) {}\n",
		"sub/sub.go":  "package sub\n",
		"sub/text.md": "func FuzzNot(f *testing.F)",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	got, err := fuzzTargets(t.Context(), []string{"./..."})
	if want := []fuzzTarget{{"m.example", "FuzzOne"}, {"m.example", "FuzzTwo"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("fuzz targets %v, %v, want %v", got, err, want)
	}
}
