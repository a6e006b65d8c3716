package archtest

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// sound is a module that breaks no rule.
func sound() fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range map[string]string{
		"go.mod": "module m.example\n\ngo 1.26\n\nrequire golang.org/x/sys v0.1.0\n\nrequire (\n\tq.example/q v1.0.0 // why\n\tq.example/r v1.0.0 // indirect\n)\n",
		"ARCHITECTURE.md": "<!-- archtest: packages -->\n| Package | … |\n|---|\n" +
			"| `low` | any | | | low |\n| `high` | Linux | `low` | `x/sys` | high |\n| `internal/*` | Linux | | `x/sys` | |\n" +
			"<!-- end -->\n| `golang.org/x/sys` | all | |\n| `q.example/q` | tests | |\n",
		"low/low.go":                 "// Package low is below.\npackage low\n\nimport (\n\t\"fmt\"\n\t\"syscall\"\n)\n\n// X prints.\nfunc X() { fmt.Println() }\n\n// E is an error.\ntype E struct{}\n\nfunc (E) Error() string { return \"\" }\n\n// Is compares.\nfunc (E) Is(err error) bool { return err == ErrX }\n\nfunc f(e struct{ Errno syscall.Errno }) bool { return e.Errno == syscall.EPERM }\n\n// ErrX is one.\nvar ErrX error\n",
		"high/high.go":               "// Package high is above.\npackage high\n\nimport (\n\t\"golang.org/x/sys/unix\"\n\t\"m.example/low\"\n)\n\n// Y calls.\nfunc Y() { low.X(); unix.Getpid() }\n",
		"high/trace_test.go":         "package high_test\n\nimport \"golang.org/x/sys/unix\"\n\nvar _ = unix.PtraceSeize\n",
		"high/high_test.go":          "package high_test\n\nimport (\n\t_ \"m.example/high\"\n\t_ \"m.example/internal/testkit\"\n\t_ \"q.example/q/sub\"\n)\n",
		"internal/testkit/kit.go":    "// Package testkit skips.\npackage testkit\n\nimport \"testing\"\n\nfunc F(t *testing.T) { t.Skip() }\n",
		"internal/linux/linux.go":    "// Package linux calls.\npackage linux\n\nimport \"golang.org/x/sys/unix\"\n\nfunc init() { runtime.LockOSThread() }\n\nfunc F() { unix.RawSyscall(1, 2, 3, 4); unix.PtraceCont(1, 2) }\n",
		"internal/linux/a_unsafe.go": "package linux\n\nimport _ \"unsafe\"\n",
		"low/testdata/x.go":          "not Go",
		"bin/x.go":                   "not Go",
		"nested/go.mod":              "module nested.example\n",
		"nested/x.go":                "not Go",
	} {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestSoundModuleBreaksNoRule(t *testing.T) {
	h, err := readHouse(sound())
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		if broken := rule.check(h); len(broken) > 0 {
			t.Errorf("%s: %q", rule.name, broken)
		}
	}
}

func TestRulesFindWhatBreaksThem(t *testing.T) {
	for _, tc := range []struct {
		rule, file, text string
		want             string // in the one complaint
	}{
		{"imports", "low/x.go", "package low\n\nimport _ \"m.example/high\"\n", "low/x.go:3: imports m.example/high"},
		{"imports", "low/x.go", "package low\n\nimport _ \"golang.org/x/sys/unix\"\n", "imports golang.org/x/sys/unix"},
		{"imports", "low/x.go", "package low\n\nimport _ \"q.example/q\"\n", "imports q.example/q"},
		{"imports", "low/x.go", "package low\n\nimport _ \"C\"\n", "needs cgo"},
		{"imports", "low/x_test.go", "package low\n\nimport _ \"m.example/high\"\n", "imports m.example/high"},
		{"imports", "low/x_test.go", "package low\n\nimport _ \"q.example/r\"\n", "imports q.example/r"},
		{"imports", "other/x.go", "// Package other is in no row.\npackage other\n", "other: the table of packages"},
		{"unsafe", "low/x.go", "package low\n\nimport _ \"unsafe\"\n", "low/x.go:3: imports unsafe"},
		{"unsafe", "low/x.go", "package low\n\n//go:linkname now runtime.now\nfunc now()\n", "low/x.go:3: go:linkname"},
		{"system calls", "high/x.go", "package high\n\nimport \"syscall\"\n\nvar _ = syscall.RawSyscall6\n", "high/x.go:5: RawSyscall6"},
		{"system calls", "high/x.go", "package high\n\nimport \"golang.org/x/sys/unix\"\n\nvar _ = unix.PtraceSeize\n", "high/x.go:5: PtraceSeize"},
		{"errors", "high/x.go", "package high\n\nimport \"golang.org/x/sys/unix\"\n\nfunc f(err error) bool { return err == unix.EINTR }\n", "high/x.go:5: compares an error with =="},
		{"errors", "high/x.go", "package high\n\nimport \"io\"\n\nfunc f(err error) bool { return io.EOF != err }\n", "high/x.go:5: compares an error with !="},
		{"errors", "high/x.go", "package high\n\nfunc f(err error) bool { return err == ErrGone }\n", "compares an error"},
		{"errors", "high/x.go", "package high\n\nimport \"os\"\n\nfunc f(err error) {\n\tswitch err {\n\tcase os.ErrExist:\n\t}\n}\n", "high/x.go:7: compares an error by switch"},
		{"init", "low/x.go", "package low\n\nfunc init() {}\n", "low/x.go:3: func init"},
		{"init", "low/x.go", "package low\n\nfunc init() { runtime.LockOSThread(); register() }\n", "low/x.go:3: func init"},
		{"skips", "low/x_test.go", "package low\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) { t.Skipf(\"\") }\n", "low/x_test.go:5: Skipf"},
		{"package comments", "low/x.go", "// Package low once more.\npackage low\n", "low: 2 package comments: low.go x.go"},
		{"package comments", "internal/new/x.go", "package new\n", "internal/new: 0 package comments"},
		{"comments", "low/x.go", "package low\n\ntype T struct{}\n", "low/x.go:3: T has no comment"},
		{"comments", "low/x.go", "package low\n\ntype t struct{}\n\nfunc F() {}\n\nfunc (t) M() {}\n", "low/x.go:5: F has no comment"},
		{"comments", "low/x.go", "package low\n\n// T is.\ntype T[P any] struct{}\n\nfunc (*T[P]) M() {}\n", "low/x.go:6: M has no comment"},
		{"comments", "low/x.go", "package low\n\nconst (\n\ta = 1\n\tB = 2\n\tC = 3 // is three\n\tD = 4\n)\n", "low/x.go:5: B has no comment"},
		{"length", "low/x.go", "package low\n" + strings.Repeat("\n", maxLines), "low/x.go: 701 lines"},
		{"dependencies", "go.mod", "module m.example\n\nrequire s.example/s v1.0.0\n", "does not say why s.example/s is required"},
	} {
		t.Run(tc.rule+" "+tc.file, func(t *testing.T) {
			fsys := sound()
			fsys[tc.file] = &fstest.MapFile{Data: []byte(tc.text)}
			h, err := readHouse(fsys)
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(rules, func(r rule) bool { return r.name == tc.rule })
			if broken := rules[at].check(h); len(broken) != 1 || !strings.Contains(broken[0], tc.want) {
				t.Errorf("complaints %q, want one with %q", broken, tc.want)
			}
		})
	}
}

func TestGeneratedFilesMayBeLong(t *testing.T) {
	fsys := sound()
	fsys["low/x.go"] = &fstest.MapFile{Data: []byte("// Code generated by x; DO NOT EDIT.\n\npackage low\n" + strings.Repeat("\n", maxLines))}
	h, err := readHouse(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if broken := checkLength(h); len(broken) > 0 {
		t.Errorf("%q", broken)
	}
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true},
		{"a", "a/b", false},
		{"a/b", "a", false},
		{"a/*", "a/b", true},
		{"a/*", "a", false},
		{"a/*", "a/b/c", false},
		{"a/...", "a", true},
		{"a/...", "a/b/c", true},
		{"a/...", "ab", false},
		{".", ".", true},
		{".", "a", false},
	} {
		if got := matches(tc.pattern, tc.name); got != tc.want {
			t.Errorf("matches(%q, %q) = %v", tc.pattern, tc.name, got)
		}
	}
}

func TestTableErrors(t *testing.T) {
	const begin, end = "<!-- archtest: packages -->\n", "<!-- end -->\n"
	for _, document := range []string{
		"",
		begin,
		begin + "| `a` | any | | |\n" + end,
		begin + "| `a` | Plan 9 | | | x |\n" + end,
		begin + "| `a` | any | | `left-pad` | x |\n" + end,
	} {
		if table, err := parseTable(document); err == nil {
			t.Errorf("%q: %+v and no error", document, table)
		}
	}
}
