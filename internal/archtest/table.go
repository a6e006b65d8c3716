package archtest

import (
	"errors"
	"fmt"
	"strings"
)

// A row of the table of packages says what the packages that fit its pattern may import.
type row struct {
	pattern  string
	anywhere bool     // builds on any system, and needs no kernel
	own      []string // patterns of packages of the module
	others   []string // names of modules or packages, see otherImports
}

// otherImports maps the short names that the table uses to patterns of import paths.
var otherImports = map[string]string{
	"x/sys":     "golang.org/x/sys/...",
	"protowire": "google.golang.org/protobuf/encoding/protowire",
	"protobuf":  "google.golang.org/protobuf/...",
	"go-criu":   "github.com/checkpoint-restore/go-criu/v8/...",
}

// parseTable reads the table of packages, which stands between two marks.
func parseTable(document string) ([]row, error) {
	_, rest, found := strings.Cut(document, "<!-- archtest: packages -->")
	if !found {
		return nil, errors.New("ARCHITECTURE.md has no table of packages")
	}
	text, _, found := strings.Cut(rest, "<!-- end -->")
	if !found {
		return nil, errors.New("ARCHITECTURE.md: the table of packages has no end mark")
	}
	var table []row
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") { // the heading, or space
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 5 {
			return nil, fmt.Errorf("ARCHITECTURE.md: a row of the table of packages has %d cells: %s", len(cells), line)
		}
		r := row{own: codeSpans(cells[2]), others: codeSpans(cells[3])}
		switch where := strings.TrimSpace(cells[1]); where {
		case "any":
			r.anywhere = true
		case "Linux":
		default:
			return nil, fmt.Errorf("ARCHITECTURE.md: a row of the table of packages builds on %q: %s", where, line)
		}
		for _, other := range r.others {
			if otherImports[other] == "" {
				return nil, fmt.Errorf("ARCHITECTURE.md: the table of packages uses a name that archtest does not know: %s", other)
			}
		}
		for _, pattern := range codeSpans(cells[0]) {
			r.pattern = pattern
			table = append(table, r)
		}
	}
	return table, nil
}

// codeSpans returns what stands between backquotes.
func codeSpans(text string) []string {
	var spans []string
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			spans = append(spans, part)
		}
	}
	return spans
}

// rowOf returns the first row that fits a package.
func (h *house) rowOf(dir string) (row, bool) {
	for _, r := range h.table {
		if matches(r.pattern, dir) {
			return r, true
		}
	}
	return row{}, false
}

// matches reports whether a path fits a pattern: "*" is one element, "..." at the end any number.
func matches(pattern, name string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(name, "/")
	for i, element := range want {
		if element == "..." {
			return true
		}
		if i >= len(got) || element != "*" && element != got[i] {
			return false
		}
	}
	return len(want) == len(got)
}

func matchesAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if matches(pattern, name) {
			return true
		}
	}
	return false
}
