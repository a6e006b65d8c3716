package criuconf

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRead(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []Statement
	}{
		{"empty", "", nil},
		{"blank lines and comments", "\n  \t\n# a comment\n   # another\n#\n", nil},
		{"an option", "tcp-established\n", []Statement{{1, []string{"tcp-established"}}}},
		{"no newline at the end", "tcp-established", []Statement{{1, []string{"tcp-established"}}}},
		{"a value", "work-dir /tmp/x\n", []Statement{{1, []string{"work-dir", "/tmp/x"}}}},
		{"a value behind =", "verbosity=4\n", []Statement{{1, []string{"verbosity=4"}}}},
		{"much white space", " \t tree \t 42 \t\n", []Statement{{1, []string{"tree", "42"}}}},
		{"a comment behind", "no-tls # as in the manual\n", []Statement{{1, []string{"no-tls"}}}},
		{"# inside a word is a letter", "external dev[1/2]:a#b\n", []Statement{{1, []string{"external", "dev[1/2]:a#b"}}}},
		{"a quoted value", `root "/a b"`, []Statement{{1, []string{"root", "/a b"}}}},
		{"an escaped quote", `work-dir "/my \"work\" dir" # x`, []Statement{{1, []string{"work-dir", `/my "work" dir`}}}},
		{"other backslashes stand for themselves", `root "a\b\n"`, []Statement{{1, []string{"root", `a\b\n`}}}},
		{"# inside quotes", `root "a # b"`, []Statement{{1, []string{"root", "a # b"}}}},
		{"an empty value", `libdir ""`, []Statement{{1, []string{"libdir", ""}}}},
		{"a quote that is not closed", `root "a b`, []Statement{{1, []string{"root", `"a`, "b"}}}},
		{"quotes in the middle of a word", `root="a b"`, []Statement{{1, []string{`root="a`, `b"`}}}},
		{"a word right behind a quoted one", `root "a"b`, []Statement{{1, []string{"root", "a", "b"}}}},
		{"carriage returns", "tls\r\nroot x\r\n", []Statement{{1, []string{"tls"}}, {2, []string{"root", "x"}}}},
		{"lines are counted", "# one\n\ntls\n", []Statement{{3, []string{"tls"}}}},
	} {
		got, err := Read(strings.NewReader(test.text))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: read %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, test := range []struct {
		name, text string
		line       int
		want       string
	}{
		{"NUL", "tls\nroot a\x00b\n", 2, "NUL byte"},
		{"a long line", "tls\nroot " + strings.Repeat("x", MaxLine) + "\n", 2, "longer than"},
		{"a large file", strings.Repeat("# comment\n", MaxSize/10+1), 0, "larger than"},
	} {
		_, err := Read(strings.NewReader(test.text))
		e, ok := errors.AsType[*SyntaxError](err)
		if !ok || !strings.Contains(e.Error(), test.want) || test.line != 0 && e.Line != test.line {
			t.Errorf("%s: %v, want line %d, %q", test.name, err, test.line, test.want)
		}
	}
	broken := errors.New("disk on fire")
	if _, err := Read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("an error of the reader comes back as %v", err)
	}
}

func TestArgs(t *testing.T) {
	s := Statement{Words: []string{"work-dir", "/x"}}
	if got, want := s.Args(), []string{"--work-dir", "/x"}; !reflect.DeepEqual(got, want) {
		t.Errorf("args are %q, want %q", got, want)
	}
	if s.Words[0] != "work-dir" {
		t.Error("Args changes its statement")
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct {
		name  string
		value []string
		want  string // "" where it must be refused
	}{
		{"log-pid", nil, "log-pid\n"},
		{"libdir", []string{"/usr/lib/criu"}, "libdir /usr/lib/criu\n"},
		{"libdir", []string{"#a"}, "libdir \"#a\"\n"},
		{"libdir", []string{"a#b\\c"}, "libdir a#b\\c\n"},
		{"libdir", []string{`a "b" # c`}, "libdir \"a \\\"b\\\" # c\"\n"},
		{"libdir", []string{""}, "libdir \"\"\n"},
		{"libdir", []string{"a\nb"}, ""},
		{"libdir", []string{`a\`}, ""},
		{"libdir", []string{`a\"b`}, ""},
		{"lib dir", nil, ""},
		{"", nil, ""},
	} {
		got, err := Format(test.name, test.value...)
		if (err != nil) != (test.want == "") || got != test.want {
			t.Errorf("%s %q is written as %q (%v), want %q", test.name, test.value, got, err, test.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"tls\nroot \"a b\" # c\n", `x "\"" "" "a\\"`, "\"", "a\x00", "\r\n#\n", "root \"\\\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		statements, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		if lines := strings.Count(text, "\n") + 1; len(statements) > lines {
			t.Fatalf("%d statements in %d lines", len(statements), lines)
		}
		for _, s := range statements {
			if len(s.Words) == 0 || s.Line < 1 {
				t.Fatalf("an empty statement: %+v", s)
			}
			// What can be written is read back as it was.
			line, err := Format(s.Words[0], s.Words[1:]...)
			if err != nil {
				continue
			}
			again, err := Read(strings.NewReader(line))
			if err != nil || len(again) != 1 || !reflect.DeepEqual(again[0].Words, s.Words) {
				t.Fatalf("%q is written as %q and read back as %+v (%v)", s.Words, line, again, err)
			}
		}
	})
}
