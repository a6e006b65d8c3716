//go:build !amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"stasis.example/criu"
	"stasis.example/image"
)

// Engine is the built-in engine, which there is not for this architecture yet: it opens no conversation.
type Engine struct{}

// New returns the engine.
func New() *Engine { return &Engine{} }

// String names the engine for messages.
func (e *Engine) String() string { return "the built-in engine" }

// ChecksPages tells a client that a restore refuses images whose pages are not all there.
func (e *Engine) ChecksPages() bool { return true }

// Open refuses.
func (e *Engine) Open(_ context.Context, call criu.Call) (criu.Conn, error) {
	return nil, &criu.Error{Op: call.Op.String(), Stage: "connect", Peer: e.String(), Kind: criu.ErrUnsupported,
		Err: fmt.Errorf("it is for amd64 only, not for %s yet: %w", runtime.GOARCH, errors.ErrUnsupported)}
}

// Settings are what a program that has the engine in itself can say beside its requests.
type Settings struct {
	// Log is where the log of a request goes that names no file; nil for standard error.
	Log io.Writer
	// Out is where statistics are printed, if they are asked for; nil for standard output.
	Out io.Writer
	// FileValidation says how a restore tells that a file is the one that was open.
	FileValidation string
	// Stage is told of the stages of an operation as they come.
	Stage func(name string)
}

// StagePages is the stage in which a dump writes the memory of a large process.
const StagePages = "pages"

// With returns the engine.
func (e *Engine) With(Settings) *Engine { return e }

// PlanOptions are what of a request to restore a plan depends on.
type PlanOptions struct {
	ShellJob bool     // the tree belongs to the caller's session and terminal
	Inherit  []string // the keys of files that are handed in
}

// Plan refuses.
func Plan(context.Context, image.Dir, PlanOptions) (string, error) {
	return "", fmt.Errorf("the built-in engine is for amd64 only, not for %s yet: %w", runtime.GOARCH, errors.ErrUnsupported)
}

// A Feature is the engine's answer to a name that CRIU's `check --feature` knows.
type Feature struct {
	Name       string
	Has, Known bool
	Why        string
}

// FeatureNames returns no names.
func FeatureNames() []string { return nil }

// Feature knows no names.
func (e *Engine) Feature(string) (Feature, bool) { return Feature{}, false }

// Lacking names nothing.
func (e *Engine) Lacking() []string { return nil }
