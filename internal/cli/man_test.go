package cli

import (
	goflag "flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stasis.example/internal/testkit"
)

var update = goflag.Bool("update", false, "write the generated parts of files anew")

// TestManPage: the list of options in the manual page is that of the table. With -update it is written.
func TestManPage(t *testing.T) {
	const begin, end = ".\\\" options: begin\n", ".\\\" options: end\n"
	path := filepath.Join(testkit.SourceRoot(), "docs", "man", "stasis.1")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost its marks", path)
	}
	want := head + begin + manOptions() + end + tail
	if string(page) == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the table says; go test ./internal/cli -run TestManPage -update writes it", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func manOptions() string {
	escape := strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace
	var b strings.Builder
	for _, g := range newFlagSet().groups() {
		fmt.Fprintf(&b, ".SS %s\n", escape(sentence(g.title)))
		for _, f := range g.flags {
			if f.hidden {
				continue
			}
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fP\n%s.\n", escape(strings.TrimSpace(f.syntax())), escape(sentence(f.help)))
			if f.place == byChild || f.place == byProgram {
				b.WriteString("Not with a service.\n")
			}
		}
	}
	return b.String()
}
