package criutest

import (
	"context"
	"errors"
	"reflect"
	"syscall"
	"testing"
	"time"

	"stasis.example/criu"
)

// Client is what the suite asks for operations: [criu.Client], or what stands for a client in another language.
type Client interface {
	Check(context.Context, criu.CheckOptions) error
	Version(context.Context) (criu.Version, error)
	Features(context.Context) (criu.Features, error)
	Dump(context.Context, criu.DumpOptions) (criu.DumpResult, error)
	PreDump(context.Context, criu.PreDumpOptions) error
	Restore(context.Context, criu.RestoreOptions) (criu.RestoreResult, error)
}

// Ability is what a target can do beyond the least.
type Ability uint

const (
	// Notifies: the functions Notify of the options are called.
	Notifies Ability = 1 << iota
	// Cancels: a context that ends ends a call.
	Cancels
	// Explains: an error carries the peer's message and the log, not its kind and errno alone.
	Explains
	// Owns: the peer is the caller's child: it takes descriptors, restores a tree as the caller's child, and is killed
	// where it hangs.
	Owns

	// Everything is what package criu can do with a swrk child.
	Everything = Notifies | Cancels | Explains | Owns
)

// Target is what the suite is run against. Either function may be nil: its part of the suite is left out then.
type Target struct {
	// Scripted returns a client of the scripted peer.
	Scripted func(testing.TB, *Peer) Client
	// Real returns a client of a peer that dumps and restores processes.
	Real func(testing.TB) Client
	// Can is what can be expected. Operations beyond those of Client are tested where the client is a *criu.Client.
	Can Ability
}

func (target Target) can(a Ability) bool { return target.Can&a == a }

// suiteTest is one test of the suite.
type suiteTest struct {
	name  string
	needs Ability
	run   func(*testing.T, Target)
}

// Run runs the suite. Real tests need root. Every test also checks that nothing is left behind: no descriptor, no child
// process, no goroutine.
func Run(t *testing.T, target Target) {
	t.Helper()
	if target.Scripted != nil {
		t.Run("scripted", func(t *testing.T) { runTests(t, target, scriptedTests()) })
	}
	if target.Real != nil {
		t.Run("real", func(t *testing.T) { runTests(t, target, realTests()) })
	}
}

func runTests(t *testing.T, target Target, tests []suiteTest) {
	for _, test := range tests {
		if !target.can(test.needs) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			NoLeaks(t)
			test.run(t, target)
		})
	}
}

// patience bounds what must not take long. It is generous: a loaded machine is slow.
const patience = 30 * time.Second

// within runs f, and fails the test if it takes too long: a hang is the failure that the suite is after.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s hangs", what)
	}
}

// full returns a client as package criu's, nil where it is another.
func full(c Client) *criu.Client {
	client, _ := c.(*criu.Client)
	return client
}

// wantError checks an error against a row of the table: a sentinel and errno values that it must match.
func wantError(t *testing.T, err error, sentinel error, codes ...syscall.Errno) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want %v", sentinel)
	}
	if !errors.Is(err, sentinel) {
		t.Errorf("error %q does not match the sentinel %q", err, sentinel)
	}
	for _, code := range codes {
		if !errors.Is(err, code) {
			t.Errorf("error %q does not match errno %d (%v)", err, int(code), code)
		}
	}
	if len(codes) > 0 && criu.ReturnCode(err) != -int(codes[0]) {
		t.Errorf("error %q has the return code %d, want %d", err, criu.ReturnCode(err), -int(codes[0]))
	}
}

// unchanged returns a function that checks that options are as they were. Functions and files are compared by identity.
func unchanged(t *testing.T, options any) func() {
	t.Helper()
	before := deepCopy(reflect.ValueOf(options))
	return func() {
		t.Helper()
		if !same(before, reflect.ValueOf(options)) {
			t.Errorf("the options were changed:\nbefore %+v\nafter  %+v", before.Interface(), options)
		}
	}
}

// deepCopy copies structs, slices and pointers to them; files stay the same.
func deepCopy(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if c.Field(i).CanSet() {
				c.Field(i).Set(deepCopy(v.Field(i)))
			}
		}
	case reflect.Slice:
		if !v.IsNil() {
			c.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				c.Index(i).Set(deepCopy(v.Index(i)))
			}
		}
	case reflect.Pointer:
		if v.IsNil() || v.Type().Elem().PkgPath() == "os" {
			c.Set(v)
		} else {
			c.Set(reflect.New(v.Type().Elem()))
			c.Elem().Set(deepCopy(v.Elem()))
		}
	default:
		c.Set(v)
	}
	return c
}

func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() || a.IsNil() != b.IsNil() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() || a.Type().Elem().PkgPath() == "os" {
			return a.Pointer() == b.Pointer()
		}
		return same(a.Elem(), b.Elem())
	case reflect.Func:
		return a.Pointer() == b.Pointer()
	}
	return a.Equal(b)
}
