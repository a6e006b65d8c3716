// Package getopt reads command lines as getopt_long(3) of the GNU C library does, for programs that must accept what
// a C program accepts: operands and options in any order, short options glued together (-dS), required values glued
// or apart (-t42, -t 42, --tree=42, --tree 42), optional values glued only (-v4, --cpu-cap=none), unique prefixes of
// long options (--tcp-e), "--" as the end of options. A long option may also be declared negatable (--no-NAME).
//
// None of the flag packages that were looked at does this: pflag and the standard library know neither optional
// values of short options nor prefixes; pborman/getopt has no prefixes and stops at the first operand;
// DavidGamba/go-getoptions reads -v4 as the two options -v and -4, and the value of an optional argument from the next
// word; rsc.io/getopt is built on the standard library's.
//
// The package declares nothing about types of values: it only says which option stood where with which text, in
// order, so that a caller can put several sources (configuration files, the command line) one over the other.
package getopt

import (
	"fmt"
	"slices"
	"strings"
)

// Arg says whether an option takes a value.
type Arg int

const (
	None     Arg = iota // --detach
	Required            // --tree PID
	Optional            // --verbosity[=NUM]; the value is never taken from the next word
)

// Option declares an option. At least one of Long and Short is set.
type Option struct {
	Long      string // without its dashes
	Short     byte   // 0 for none
	Arg       Arg
	Negatable bool // --no-LONG exists too
	// Exact options are matched by their whole name only, and do not make a prefix of another option ambiguous: a
	// program may add options of its own without changing what the command lines of the program that it stands in
	// for mean.
	Exact bool
	// Late options came with a later version of the program than command lines may be written for: a prefix means one
	// only where it can mean nothing else.
	Late bool
}

// Item is an option as it was given.
type Item struct {
	Option   *Option
	Negated  bool   // it was given as --no-LONG
	Value    string // "" where HasValue is false
	HasValue bool
	As       string // what was written, without the value: --tree, --tr, -t
	Index    int    // position in the arguments of the word that it began in
	Words    int    // how many words it took: 2 where the value stood apart; of options glued together, each has 1
}

// Operand is a word that is not an option.
type Operand struct {
	Text  string
	Index int  // position in the arguments
	After bool // it stood behind "--"
}

// Result is a command line that was read.
type Result struct {
	Items    []Item
	Operands []Operand
}

// Set is a set of options. It is not changed by parsing, and safe for concurrent use.
type Set struct {
	options []*Option
	long    []longName
	short   map[byte]*Option
}

type longName struct {
	name    string
	option  *Option
	negated bool
}

// NewSet makes a set of options. It panics where two of them have the same name, which is a mistake in the program.
func NewSet(options []*Option) *Set {
	s := &Set{options: options, short: make(map[byte]*Option)}
	seen := make(map[string]bool)
	addLong := func(name string, o *Option, negated bool) {
		if seen[name] {
			panic("getopt: two options are called --" + name)
		}
		seen[name] = true
		s.long = append(s.long, longName{name, o, negated})
	}
	for _, o := range options {
		if o.Long != "" {
			addLong(o.Long, o, false)
			if o.Negatable {
				addLong("no-"+o.Long, o, true)
			}
		}
		if o.Short != 0 {
			if s.short[o.Short] != nil {
				panic("getopt: two options are called -" + string(o.Short))
			}
			s.short[o.Short] = o
		}
	}
	return s
}

// Options are the options of the set, in the order of their declaration.
func (s *Set) Options() []*Option { return slices.Clone(s.options) }

// Parse reads the words of a command line, without the name of the program. It stops at the first error, which is an
// [*Error].
func (s *Set) Parse(args []string) (Result, error) {
	var r Result
	for i := 0; i < len(args); {
		word := args[i]
		var (
			items []Item
			err   error
		)
		switch {
		case word == "--":
			for j, text := range args[i+1:] {
				r.Operands = append(r.Operands, Operand{Text: text, Index: i + 1 + j, After: true})
			}
			return r, nil
		case strings.HasPrefix(word, "--"):
			var item Item
			item, err = s.parseLong(args, i)
			items = []Item{item}
		case len(word) > 1 && word[0] == '-':
			items, err = s.parseShort(args, i)
		default:
			r.Operands = append(r.Operands, Operand{Text: word, Index: i})
			i++
			continue
		}
		if err != nil {
			return Result{}, err
		}
		r.Items = append(r.Items, items...)
		i += items[len(items)-1].Words
	}
	return r, nil
}

func (s *Set) parseLong(args []string, i int) (Item, error) {
	name, value, hasValue := strings.Cut(args[i][2:], "=")
	found, err := s.find(name)
	if err != nil {
		return Item{}, err
	}
	item := Item{
		Option: found.option, Negated: found.negated, As: "--" + name,
		Value: value, HasValue: hasValue, Index: i, Words: 1,
	}
	arg := found.option.Arg
	if found.negated {
		arg = None
	}
	switch {
	case arg == None && hasValue:
		return Item{}, &Error{Reason: UnexpectedValue, Option: item.As, Full: "--" + found.name, Value: value}
	case arg == Required && !hasValue:
		if i+1 == len(args) {
			return Item{}, &Error{Reason: MissingValue, Option: item.As, Full: "--" + found.name}
		}
		item.Value, item.HasValue, item.Words = args[i+1], true, 2
	}
	return item, nil
}

// find is the option with the name, or the only one that the name is a prefix of.
func (s *Set) find(name string) (longName, error) {
	var candidates, late []longName
	for _, l := range s.long {
		switch {
		case l.name == name:
			return l, nil
		case name == "" || l.option.Exact || !strings.HasPrefix(l.name, name):
		case l.option.Late:
			late = append(late, l)
		default:
			candidates = append(candidates, l)
		}
	}
	if len(candidates) == 0 {
		candidates = late
	}
	switch len(candidates) {
	case 0:
		return longName{}, &Error{Reason: Unknown, Option: "--" + name, Candidates: s.similar(name)}
	case 1:
		return candidates[0], nil
	}
	e := &Error{Reason: Ambiguous, Option: "--" + name}
	for _, c := range candidates {
		e.Candidates = append(e.Candidates, "--"+c.name)
	}
	return longName{}, e
}

func (s *Set) parseShort(args []string, i int) ([]Item, error) {
	word := args[i]
	var items []Item
	for j := 1; j < len(word); j++ {
		o := s.short[word[j]]
		as := "-" + word[j:j+1]
		if o == nil {
			return nil, &Error{Reason: Unknown, Option: as, In: word}
		}
		item := Item{Option: o, As: as, Index: i, Words: 1}
		if o.Arg == None {
			items = append(items, item)
			continue
		}
		switch rest := word[j+1:]; {
		case rest != "":
			item.Value, item.HasValue = rest, true
		case o.Arg == Required && i+1 == len(args):
			return nil, &Error{Reason: MissingValue, Option: as, Full: as}
		case o.Arg == Required:
			item.Value, item.HasValue, item.Words = args[i+1], true, 2
		}
		return append(items, item), nil
	}
	return items, nil
}

// similar are the names of options that a mistyped name may have meant, at most three, all equally near.
func (s *Set) similar(name string) []string {
	type near struct {
		name     string
		distance int
	}
	var found []near
	limit := 1 + len(name)/4
	if len(name) > 64 { // longer than any option by far
		return nil
	}
	for _, l := range s.long {
		if d := distance(name, l.name); d <= limit {
			found = append(found, near{"--" + l.name, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return a.distance - b.distance })
	var names []string
	for _, n := range found[:min(3, len(found))] {
		if n.distance == found[0].distance {
			names = append(names, n.name)
		}
	}
	return names
}

// distance is how many letters have to be added, removed or changed to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Reason says what is wrong with a command line.
type Reason int

const (
	Unknown Reason = iota + 1
	Ambiguous
	MissingValue
	UnexpectedValue
)

// Error is a command line that cannot be read.
type Error struct {
	Reason     Reason
	Option     string   // as it was written, with its dashes
	Full       string   // the full name of the option, where it is known
	In         string   // for a short option that does not exist: the word that it stood in
	Value      string   // the value that the option does not take
	Candidates []string // Ambiguous: what it may mean; Unknown: what is written like it
}

func (e *Error) Error() string {
	switch e.Reason {
	case Ambiguous:
		return fmt.Sprintf("option %s is ambiguous: it may mean %s", e.Option, strings.Join(e.Candidates, ", "))
	case MissingValue:
		return fmt.Sprintf("option %s needs a value", e.Full)
	case UnexpectedValue:
		return fmt.Sprintf("option %s takes no value, but was given %q", e.Full, e.Value)
	}
	text := "there is no option " + e.Option
	if e.In != "" && e.In != e.Option {
		text += " (in " + e.In + ")"
	}
	if len(e.Candidates) > 0 {
		text += "; is " + strings.Join(e.Candidates, " or ") + " meant?"
	}
	return text
}
