package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"stasis.example/criu/rpc"
	"stasis.example/internal/getopt"
)

// defaultLevel is CRIU's default verbosity, which -v adds to.
const defaultLevel = 2

// settings is what the configuration files and the command line come to.
type settings struct {
	opts rpc.Opts // what the request says of itself; descriptors are not in it

	pid                int32
	imagesDir, workDir string // "" where not given
	logFile            string
	level              int
	levelSet           bool
	pidfile            string
	scripts            []string // in the order given
	detach, sibling    bool
	execCmd            bool
	command            []string // behind --exec-cmd
	pageServer         bool
	address            string
	port               int
	psSocket, statusFD *int
	inherit            []inherited

	service serviceSettings

	child   []childOption   // for the configuration file of a swrk child
	program map[string]bool // flags that only the criu program can act on

	features      []string // to be checked
	help, version bool
	engine        engine
	json, quiet   bool

	warnings []string
}

// childOption is a line of the configuration file that a swrk child is given.
type childOption struct {
	flag  string // as it was given
	name  string // as it stands in the file
	value []string
}

func newSettings() *settings {
	return &settings{level: defaultLevel, program: make(map[string]bool)}
}

func (s *settings) needProgram(what string) { s.program[what] = true }

func (s *settings) path(dst *string, in input) error {
	if in.value == "" {
		return errors.New("the name is empty")
	}
	*dst = in.value
	return nil
}

// usageError is a command line, or configuration file, that says something wrong.
type usageError struct {
	source string // the file and line, "" for the command line
	err    error
	brief  bool // the help text would not help
	list   bool // a list of the actions helps
}

func (e *usageError) Error() string {
	if e.source != "" {
		return e.source + ": " + e.err.Error()
	}
	return e.err.Error()
}

func (e *usageError) Unwrap() error { return e.err }

// apply puts one source of options over what is there.
func (s *settings) apply(fs *flagSet, items []getopt.Item, source string, fromChild bool) error {
	for _, item := range items {
		f := fs.byOpt[item.Option]
		in := input{value: item.Value, has: item.HasValue, negated: item.Negated, flag: f, fromChild: fromChild}
		if strings.IndexByte(in.value, 0) >= 0 {
			return &usageError{source: source, err: fmt.Errorf("the value of %s has a NUL byte", f.name()), brief: true}
		}
		if err := f.set(s, in); err != nil {
			return &usageError{source: source, err: fmt.Errorf("%s: %w", item.As, err), brief: true}
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
