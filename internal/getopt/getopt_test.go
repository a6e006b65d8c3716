package getopt

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func testSet() *Set {
	return NewSet([]*Option{
		{Long: "tree", Short: 't', Arg: Required},
		{Long: "restore-detached", Short: 'd', Negatable: true},
		{Long: "restore-sibling", Short: 'S', Negatable: true},
		{Long: "verbosity", Short: 'v', Arg: Optional},
		{Long: "version", Short: 'V'},
		{Long: "images-dir", Short: 'D', Arg: Required},
		{Long: "tls", Negatable: true},
		{Long: "tls-cert", Arg: Required},
		{Long: "cpu-cap", Arg: Optional},
		{Long: "external", Arg: Required},
		{Long: "json", Exact: true},
		{Long: "image-io-mode", Late: true},
		{Long: "image-late", Late: true},
		{Short: 'x', Arg: Optional},
	})
}

// show writes a result in one line: options in full with their values, operands, those behind "--" after a bar.
func show(r Result) string {
	var words []string
	for _, it := range r.Items {
		name := it.Option.Long
		if name == "" {
			name = string(it.Option.Short)
		}
		if it.Negated {
			name = "no-" + name
		}
		if it.HasValue {
			name += "=" + it.Value
		}
		words = append(words, name)
	}
	words = append(words, "|")
	for _, o := range r.Operands {
		if o.After {
			words = append(words, "+"+o.Text)
		} else {
			words = append(words, o.Text)
		}
	}
	return strings.Join(words, " ")
}

func TestParse(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "|"},
		{"dump -t 42", "tree=42 | dump"},
		{"-t 42 dump", "tree=42 | dump"},
		{"dump -t42", "tree=42 | dump"},
		{"dump --tree 42", "tree=42 | dump"},
		{"dump --tree=42", "tree=42 | dump"},
		{"dump --tr=42", "tree=42 | dump"},
		{"dump --tree=", "tree= | dump"},
		{"dump -dS", "restore-detached restore-sibling | dump"},
		{"dump -dt 42 -S", "restore-detached tree=42 restore-sibling | dump"},
		{"dump -dt42", "restore-detached tree=42 | dump"},
		{"-v4", "verbosity=4 |"},
		{"-v", "verbosity |"},
		{"-vvvv", "verbosity=vvv |"},
		{"-v 4", "verbosity | 4"},
		{"-verbosity=0", "verbosity=erbosity=0 |"},
		{"--verbosity 4", "verbosity | 4"},
		{"--verbosity=4", "verbosity=4 |"},
		{"--verb=4", "verbosity=4 |"},
		{"-v -v", "verbosity verbosity |"},
		{"--cpu-cap", "cpu-cap |"},
		{"--cpu-cap=none", "cpu-cap=none |"},
		{"--no-restore-sibling", "no-restore-sibling |"},
		{"--no-restore-s", "no-restore-sibling |"},
		{"--tls", "tls |"}, // an exact name wins over longer ones
		{"--no-tls", "no-tls |"},
		{"--tls-cert x", "tls-cert=x |"},
		{"restore -- cmd -v --tree", "| restore +cmd +-v +--tree"},
		{"restore -d -- -- x", "restore-detached | restore +-- +x"},
		{"-t -- dump", "tree=-- | dump"}, // getopt takes the next word, whatever it is
		{"-t -d", "tree=-d |"},
		{"--images-dir --tree", "images-dir=--tree |"},
		{"-", "| -"},
		{"-x", "x |"},
		{"-x12,13", "x=12,13 |"},
		{"--external mnt[/a]:b --external dev[1/2]:c", "external=mnt[/a]:b external=dev[1/2]:c |"},
		{"--json", "json |"},
		{"--im x", "images-dir=x |"},
		{"--image-i", "image-io-mode |"},
	} {
		r, err := testSet().Parse(strings.Fields(test.args))
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
			continue
		}
		if got := show(r); got != test.want {
			t.Errorf("%q is read as %q, want %q", test.args, got, test.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		args   string
		reason Reason
		want   string
	}{
		{"--nosuch", Unknown, "there is no option --nosuch"},
		{"--tre=1", 0, ""},
		{"--treee", Unknown, "there is no option --treee; is --tree meant?"},
		{"--", 0, ""},
		{"--=x", Unknown, "there is no option --"},
		{"-q", Unknown, "there is no option -q"},
		{"-dq", Unknown, "there is no option -q (in -dq)"},
		{"--ver", Ambiguous, "option --ver is ambiguous: it may mean --verbosity, --version"},
		{"--restore", Ambiguous, "option --restore is ambiguous: it may mean --restore-detached, --restore-sibling"},
		{"--tl", Ambiguous, "option --tl is ambiguous: it may mean --tls, --tls-cert"},
		{"--image-", Ambiguous, "option --image- is ambiguous: it may mean --image-io-mode, --image-late"},
		{"--tr", MissingValue, "option --tree needs a value"},
		{"dump -t", MissingValue, "option -t needs a value"},
		{"--no-restore-sibling=1", UnexpectedValue, `option --no-restore-sibling takes no value, but was given "1"`},
		{"--tls=", UnexpectedValue, `option --tls takes no value, but was given ""`},
		{"--js", Unknown, "there is no option --js"}, // exact options have no prefixes
	} {
		_, err := testSet().Parse(strings.Fields(test.args))
		if test.reason == 0 {
			if err != nil {
				t.Errorf("%q: %v", test.args, err)
			}
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%q: error %v is no *Error", test.args, err)
			continue
		}
		if e.Reason != test.reason || e.Error() != test.want {
			t.Errorf("%q: reason %d, %q; want %d, %q", test.args, e.Reason, e, test.reason, test.want)
		}
	}
}

// TestWords: by Index and Words a caller can take single options out of a command line and pass on the rest.
func TestWords(t *testing.T) {
	args := strings.Fields("dump --tree 42 -dS --json -v4 -D dir x -- --json")
	r, err := testSet().Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	rest := slices.Clone(args)
	for _, it := range slices.Backward(r.Items) {
		if it.Option.Long == "json" || it.Option.Long == "tree" {
			rest = slices.Delete(rest, it.Index, it.Index+it.Words)
		}
	}
	if got, want := strings.Join(rest, " "), "dump -dS -v4 -D dir x -- --json"; got != want {
		t.Errorf("rest is %q, want %q", got, want)
	}
	for _, o := range r.Operands {
		if args[o.Index] != o.Text {
			t.Errorf("operand %q is said to be at %d, where %q is", o.Text, o.Index, args[o.Index])
		}
	}
}

func TestSameNamesPanic(t *testing.T) {
	for _, options := range [][]*Option{
		{{Long: "a"}, {Long: "a"}},
		{{Short: 'a'}, {Short: 'a'}},
		{{Long: "a", Negatable: true}, {Long: "no-a"}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v made a set", options)
				}
			}()
			NewSet(options)
		}()
	}
}

// render writes a result as a command line in one fixed form.
func render(r Result) []string {
	var args []string
	for _, it := range r.Items {
		name := "--" + it.Option.Long
		if it.Option.Long == "" {
			name = "-" + string(it.Option.Short)
			if it.HasValue {
				name += it.Value
			}
			args = append(args, name)
			continue
		}
		if it.Negated {
			name = "--no-" + it.Option.Long
		}
		if it.HasValue {
			name += "=" + it.Value
		}
		args = append(args, name)
	}
	args = append(args, "--")
	for _, o := range r.Operands {
		args = append(args, o.Text)
	}
	return args
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"dump -t 42", "-verbosity=0", "--no-tls --tl", "-dSt1 -- x", "--=", "-x\x00-", "--ver"} {
		f.Add(s)
	}
	set := testSet()
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		r, err := set.Parse(args)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		// What was read, written in full, is read as the same.
		again, err := set.Parse(render(r))
		if err != nil {
			t.Fatalf("%q was read, but %q is not: %v", args, render(r), err)
		}
		strip := func(r Result) string {
			var b strings.Builder
			for _, it := range r.Items {
				fmt.Fprintf(&b, "%p %v %q %v\n", it.Option, it.Negated, it.Value, it.HasValue)
			}
			for _, o := range r.Operands {
				fmt.Fprintf(&b, "%q\n", o.Text)
			}
			return b.String()
		}
		if a, b := strip(r), strip(again); a != b {
			t.Fatalf("%q is read as\n%sbut written in full as\n%s", args, a, b)
		}
		// Every word belongs to exactly one option (or one word of glued options), operand or "--".
		taken := make([]int, len(args))
		last := -1
		for _, it := range r.Items {
			for w := range it.Words {
				if w == 0 && it.Index == last {
					continue
				}
				taken[it.Index+w]++
			}
			last = it.Index
		}
		for _, o := range r.Operands {
			taken[o.Index]++
		}
		for i, n := range taken {
			if n != 1 && !(n == 0 && args[i] == "--") {
				t.Fatalf("word %d of %q is read %d times", i, args, n)
			}
		}
		if !reflect.DeepEqual(r, must(set.Parse(args))) {
			t.Fatal("reading twice gives two results")
		}
	})
}

func must(r Result, err error) Result {
	if err != nil {
		panic(err)
	}
	return r
}
