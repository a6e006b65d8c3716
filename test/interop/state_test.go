package interop

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

// docs/state.md promises nothing that no test shows, and every subject is on it.
func TestStatePage(t *testing.T) {
	root := testkit.SourceRoot()
	text, err := os.ReadFile(filepath.Join(root, "docs", "state.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, s := range subjects() {
		names["TestVictimsFourWays/"+s.name] = true
	}
	for _, s := range programs() {
		names["TestProgramsFourWays/"+s.name] = true
	}
	rows := regexp.MustCompile("`([a-z/]+)` `(Test[^`]+)`").FindAllStringSubmatch(string(text), -1)
	if len(rows) < 30 {
		t.Fatalf("only %d tests are named", len(rows))
	}
	for _, row := range rows {
		pkg, test := row[1], row[2]
		function, _, sub := strings.Cut(test, "/")
		if sub && !names[test] {
			t.Errorf("%s: there is no subject of this name", test)
		}
		if !declares(t, filepath.Join(root, pkg), function) {
			t.Errorf("%s has no test %s", pkg, function)
		}
	}
}

func declares(t *testing.T, dir, function string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+function+"(") {
			return true
		}
	}
	return false
}
