package cli

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"stasis.example/criu"
	builtin "stasis.example/engine"
)

// openBuiltin makes the built-in engine ready, which logs to stderr.
func (r *run) openBuiltin(stderr *os.File) (*peer, error) {
	var names []string
	for _, c := range r.settings.child {
		if !slices.Contains(names, c.flag) {
			names = append(names, c.flag)
		}
	}
	if len(names) > 0 {
		return nil, r.refuseBuiltin(strings.Join(names, ", "))
	}
	e := builtin.New().With(builtin.Settings{Log: cmp.Or(stderr, r.Stderr)})
	return &peer{client: criu.New(e), name: e.String()}, nil
}

// refuseBuiltin is what is said of an action or a flag that the built-in engine does not have.
func (r *run) refuseBuiltin(what string) error {
	return &usageError{err: fmt.Errorf("the built-in engine does not have %s yet: CRIU does, where it is installed: %s", what, r.wayToCRIU()), brief: true}
}

// wayToCRIU tells how to choose CRIU as the engine. By the name of criu the program has only criu's options.
func (r *run) wayToCRIU() string {
	if r.asCRIU {
		return "set " + engineVariable + "=criu:PATH, or run CRIU itself"
	}
	return "--engine criu"
}
