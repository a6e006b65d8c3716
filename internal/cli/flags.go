package cli

import (
	"fmt"
	"strings"

	"stasis.example/criu/rpc"
	"stasis.example/internal/getopt"
)

// place says who does what a flag asks for.
type place int

const (
	byRPC     place = iota + 1 // a field of the request
	byUs                       // the command line itself
	byChild                    // a swrk child, which reads it from a configuration file
	byProgram                  // the criu program, which is executed instead
	refused                    // nobody any more
)

// flag is one flag: how it is written, what it is good for and what it does to the settings.
type flag struct {
	getopt.Option
	value   string // what stands for its value in a help text
	place   place
	fields  []string // the fields of criu_opts that it sets
	actions []string // the actions that have a use for it; nil for all
	help    string
	hidden  bool // not in help texts: CRIU does not document it either, or only as deprecated
	own     bool // stasis' own, not one of criu's
	set     func(s *settings, in input) error
}

// input is a flag as it was given.
type input struct {
	value   string
	has     bool // it has a value
	negated bool
	flag    *flag
	// fromChild: a swrk child reads the file that this comes from by itself, so what adds up must not be sent as well.
	fromChild bool
}

// name is the flag as it is shown to people.
func (f *flag) name() string { return "--" + f.Long }

// The makers of flags. Each fills in what flags of its kind share.

// boolean is a flag that can be taken back by --no-NAME, and is a field of the request.
func boolean(name, field string, at func(o *rpc.Opts) **bool, help string) flag {
	return flag{Option: getopt.Option{Long: name, Negatable: true}, place: byRPC, fields: []string{field}, help: help,
		set: func(s *settings, in input) error {
			*at(&s.opts) = new(!in.negated)
			return nil
		}}
}

// switchOn is a flag without a negation.
func switchOn(name, field string, at func(o *rpc.Opts) **bool, help string) flag {
	f := boolean(name, field, at, help)
	f.Negatable = false
	return f
}

// text is a flag whose value is a field of the request; the last one counts.
func text(name, value, field string, at func(o *rpc.Opts) **string, help string) flag {
	return flag{Option: getopt.Option{Long: name, Arg: getopt.Required}, value: value, place: byRPC, fields: []string{field}, help: help,
		set: func(s *settings, in input) error {
			*at(&s.opts) = new(in.value)
			return nil
		}}
}

// texts is a flag that may be given more than once.
func texts(name, value, field string, at func(o *rpc.Opts) *[]string, help string) flag {
	return flag{Option: getopt.Option{Long: name, Arg: getopt.Required}, value: value, place: byRPC, fields: []string{field}, help: help,
		set: func(s *settings, in input) error {
			if !in.fromChild {
				*at(&s.opts) = append(*at(&s.opts), in.value)
			}
			return nil
		}}
}

// parsed is a flag whose value is read by a function of its own.
func parsed(name, value string, fields []string, help string, set func(s *settings, in input) error) flag {
	return flag{Option: getopt.Option{Long: name, Arg: getopt.Required}, value: value, place: byRPC, fields: fields, help: help, set: set}
}

// word is a flag whose value is one of some words.
func word[V ~int32](name, field string, at func(o *rpc.Opts) **V, words map[string]V, help string) flag {
	return parsed(name, "WORD", []string{field}, help, func(s *settings, in input) error {
		v, ok := words[in.value]
		if !ok {
			return fmt.Errorf("%q is not one of %s", in.value, strings.Join(sortedKeys(words), ", "))
		}
		*at(&s.opts) = &v
		return nil
	})
}

// ours is a flag that the command line itself acts on.
func ours(name string, help string, set func(s *settings, in input) error) flag {
	return flag{Option: getopt.Option{Long: name}, place: byUs, help: help, set: set}
}

// forChild is a flag that a swrk child reads from its configuration file.
func forChild(name, value, help string) flag {
	f := flag{Option: getopt.Option{Long: name}, place: byChild, value: value, help: help,
		set: func(s *settings, in input) error {
			switch name := in.flag.Long; {
			case in.fromChild:
				return nil
			case in.negated:
				return s.tellChild(in.flag, "no-"+name)
			case in.has:
				return s.tellChild(in.flag, name, in.value)
			default:
				return s.tellChild(in.flag, name)
			}
		}}
	if value != "" {
		f.Arg = getopt.Required
	} else {
		f.Negatable = true
	}
	return f
}

// forProgram is a flag that only the criu program itself can act on.
func forProgram(name, help string) flag {
	return flag{Option: getopt.Option{Long: name}, place: byProgram, help: help,
		set: func(s *settings, in input) error {
			if in.negated {
				delete(s.program, in.flag.name())
				return nil
			}
			s.needProgram(in.flag.name())
			return nil
		}}
}

// with changes a flag that a maker made: a short form, the actions it is for.
func (f flag) with(changes ...func(*flag)) flag {
	for _, c := range changes {
		c(&f)
	}
	return f
}

func short(letter byte) func(*flag) { return func(f *flag) { f.Short = letter } }

func on(actions ...string) func(*flag) { return func(f *flag) { f.actions = actions } }

func hidden(f *flag) { f.hidden = true }

func negatable(f *flag) { f.Negatable = true }

func arg(value string) func(*flag) {
	return func(f *flag) { f.Arg, f.value = getopt.Required, value }
}

func optional(value string) func(*flag) {
	return func(f *flag) { f.Arg, f.value = getopt.Optional, value }
}

// late marks what came with a CRIU after the one that the table was held against.
func late(f *flag) { f.Late = true }

func own(f *flag) { f.own, f.Exact = true, true }

// flagSet is the table, ready for use.
type flagSet struct {
	flags  []*flag
	byOpt  map[*getopt.Option]*flag
	getopt *getopt.Set
}

func newFlagSet() *flagSet {
	rows := flagTable()
	fs := &flagSet{byOpt: make(map[*getopt.Option]*flag, len(rows))}
	options := make([]*getopt.Option, 0, len(rows))
	for i := range rows {
		f := &rows[i]
		fs.flags = append(fs.flags, f)
		fs.byOpt[&f.Option] = f
		options = append(options, &f.Option)
	}
	fs.getopt = getopt.NewSet(options)
	return fs
}

func (fs *flagSet) lookup(name string) *flag {
	for _, f := range fs.flags {
		if f.Long == name {
			return f
		}
	}
	return nil
}
