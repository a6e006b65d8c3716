package testkit

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// A Requirement is something a test needs of the machine it runs on.
type Requirement struct {
	// Name says what is needed, as in "needs root". The list of optional requirements goes by it.
	Name string
	// Remedy says how to provide it.
	Remedy string
	// Probe finds out whether it is there. There are three answers: nil means yes, an error that wraps
	// errors.ErrUnsupported no, and any other that the probe could not tell.
	Probe func() error
}

// Environment variables that steer a run.
const (
	// EnvMust makes a missing requirement a failure. CI, whose machines are prepared for every test, sets it; CI=true
	// has the same effect.
	EnvMust = "STASIS_TEST_MUST"
	// EnvPure limits a run to the tests that need nothing: every Need with a requirement skips. The run under the race
	// detector is such a run; all tests run once more without the detector, and that run is the one that counts.
	EnvPure = "STASIS_TEST_PURE"
)

// Need skips the test, by name of what is missing, unless all requirements are met. Where everything must be there it
// fails the test instead, unless the list in optional.go excuses the requirement; a probe that could not tell is never
// excused.
func Need(t testing.TB, requirements ...Requirement) {
	t.Helper()
	if isSet(EnvPure) && len(requirements) > 0 {
		t.Skipf("needs %s: not in a run of the pure tests (%s)", requirements[0].Name, EnvPure)
	}
	must := MustRun()
	for _, r := range requirements {
		skip, fatal := r.verdict(must)
		if fatal != nil {
			t.Fatal(fatal)
		}
		if skip != nil {
			t.Skip(skip)
		}
	}
}

// MustRun reports whether this is a run in which a missing requirement is a failure.
func MustRun() bool { return isSet(EnvMust) || isSet("CI") }

// verdict says what a requirement means for a test: both results nil, it is met; else one of them says why not.
func (r Requirement) verdict(must bool) (skip, fatal error) {
	err := r.Probe()
	if err == nil {
		return nil, nil
	}
	unmet := fmt.Errorf("needs %s: %w", r.Name, err)
	if r.Remedy != "" {
		unmet = fmt.Errorf("%w (%s)", unmet, r.Remedy)
	}
	if !must {
		return unmet, nil
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("%w: the probe could not tell", unmet)
	}
	if reason, ok := optional(r.Name); ok {
		return fmt.Errorf("%w; optional: %s", unmet, reason), nil
	}
	return nil, unmet
}

// Missing returns the error with which a Probe says no: the text, which errors.Is takes for errors.ErrUnsupported.
func Missing(format string, args ...any) error { return missing(fmt.Sprintf(format, args...)) }

type missing string

func (m missing) Error() string        { return string(m) }
func (m missing) Is(target error) bool { return target == errors.ErrUnsupported }

// isSet reports whether an environment variable is set to something other than "", 0 or false.
func isSet(name string) bool {
	value := os.Getenv(name)
	on, err := strconv.ParseBool(value)
	return value != "" && (on || err != nil)
}
