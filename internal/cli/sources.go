package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"stasis.example/internal/criuconf"
	"stasis.example/internal/getopt"
)

// The default configuration files, as criu(8) has them; the second one is below $HOME.
const (
	systemConfig   = "/etc/criu/default.conf"
	userConfig     = ".criu/default.conf"
	configVariable = "CRIU_CONFIG_FILE"
)

// commandLine is what the words of a command line are read as, before they mean anything.
type commandLine struct {
	args     []string // without the program's name
	items    []getopt.Item
	operands []getopt.Operand
	engine   engine
	config   string // --config
	defaults bool   // the default configuration files are read
}

// readCommandLine reads the words. What decides how everything else is read (--engine, --config, --no-default-config)
// is looked up here, wherever it stands.
func readCommandLine(fs *flagSet, args []string, env environment) (*commandLine, error) {
	r, err := fs.getopt.Parse(args)
	if err != nil {
		return nil, &usageError{err: err}
	}
	c := &commandLine{args: args, items: r.Items, operands: r.Operands, defaults: true}
	if text := env.get(engineVariable); text != "" {
		if c.engine, err = parseEngine(text); err != nil {
			return nil, &usageError{source: engineVariable, err: err, brief: true}
		}
	}
	for _, item := range r.Items {
		switch item.Option.Long {
		case "engine":
			if c.engine, err = parseEngine(item.Value); err != nil {
				return nil, &usageError{err: fmt.Errorf("--engine: %w", err), brief: true}
			}
		case "config":
			c.config, c.defaults = item.Value, false
		case "no-default-config":
			c.defaults = false
		}
	}
	return c, nil
}

// words are the words of the command line that are criu's as well: all but our own flags.
func (c *commandLine) words() []string {
	ours := make(map[int]bool)
	for _, item := range c.items {
		if item.Option.Exact {
			for i := range item.Words {
				ours[item.Index+i] = true
			}
		}
	}
	var words []string
	for i, w := range c.args {
		if !ours[i] {
			words = append(words, w)
		}
	}
	return words
}

// source is a file of options.
type source struct {
	path string
	// peer: whoever answers the RPC reads the file as well.
	peer bool
	// must: a file that is not there is an error.
	must bool
}

// sources are the configuration files of a command line, in the order in which they are read; each later one counts
// for more, and the command line most.
//
// CRIU passes over a file that is named but not there; strict makes it an error.
func (c *commandLine) sources(system string, env environment, strict bool) []source {
	var list []source
	if c.defaults {
		list = append(list, source{path: system, peer: c.engine.kind != engineBuiltin})
		if home := env.get("HOME"); home != "" {
			list = append(list, source{path: filepath.Join(home, userConfig)})
		}
	}
	if path := env.get(configVariable); path != "" {
		list = append(list, source{path: path, must: strict})
	}
	if c.config != "" {
		list = append(list, source{path: c.config, must: strict})
	}
	return list
}

// readSettings puts the configuration files and the command line together.
func readSettings(fset *flagSet, c *commandLine, system string, env environment, strict bool) (*settings, error) {
	s := newSettings()
	s.engine = c.engine
	for _, src := range c.sources(system, env, strict) {
		statements, err := readConfig(src)
		if err != nil {
			return nil, err
		}
		for _, statement := range statements {
			if err := s.applyStatement(fset, src, statement); err != nil {
				return nil, err
			}
		}
	}
	if !c.defaults && c.engine.kind != engineBuiltin {
		// The peer reads the file all the same, and the RPC has nothing to keep it from that.
		statements, err := readConfig(source{path: system})
		if err != nil || len(statements) > 0 {
			s.needProgram(fmt.Sprintf("--no-default-config while there is %s", system))
		}
	}
	if err := s.apply(fset, c.items, "", false); err != nil {
		return nil, err
	}
	s.engine = c.engine
	return s, nil
}

func readConfig(src source) ([]criuconf.Statement, error) {
	f, err := os.Open(src.path)
	if errors.Is(err, fs.ErrNotExist) && !src.must {
		return nil, nil
	}
	if err != nil {
		return nil, &usageError{err: fmt.Errorf("the configuration file cannot be read: %w", err), brief: true}
	}
	defer f.Close()
	statements, err := criuconf.Read(f)
	if err != nil {
		return nil, &usageError{source: src.path, err: err, brief: true}
	}
	return statements, nil
}

// applyStatement puts one line of a configuration file over the settings.
func (s *settings) applyStatement(fset *flagSet, src source, statement criuconf.Statement) error {
	where := fmt.Sprintf("%s:%d", src.path, statement.Line)
	r, err := fset.getopt.Parse(statement.Args())
	if err != nil {
		return &usageError{source: where, err: err, brief: true}
	}
	for _, item := range r.Items {
		if f := fset.byOpt[item.Option]; f.own || f.Long == "config" || f.Long == "no-default-config" {
			return &usageError{source: where, err: fmt.Errorf("%s can be given on the command line only", item.As), brief: true}
		}
	}
	if len(r.Operands) > 0 {
		// CRIU skips them in silence; manage-cgroups and its like take their word behind = only.
		s.warnings = append(s.warnings, fmt.Sprintf("%s: %q is not read: the option before it takes no value behind a blank", where, r.Operands[0].Text))
	}
	return s.apply(fset, r.Items, where, src.peer)
}

// environment is the variables of the process.
type environment []string

// get returns the value of a variable; the last one counts, as with getenv of what os.Environ returns.
func (e environment) get(name string) string {
	value := ""
	for _, v := range e {
		if n, text, ok := strings.Cut(v, "="); ok && n == name {
			value = text
		}
	}
	return value
}

// with returns the variables with some set anew, or left out.
func (e environment) with(set map[string]string, without ...string) environment {
	var out environment
	for _, v := range e {
		name, _, _ := strings.Cut(v, "=")
		_, anew := set[name]
		for _, w := range without {
			anew = anew || w == name
		}
		if !anew {
			out = append(out, v)
		}
	}
	for _, name := range sortedKeys(set) {
		out = append(out, name+"="+set[name])
	}
	return out
}
