//go:build amd64

package engine

import (
	"io"
	"os"
)

// Settings are what a program that has the engine in itself can say beside its requests.
type Settings struct {
	// Log is where the log of a request goes that names no file; nil for standard error.
	Log io.Writer
}

// With returns an engine with other settings.
func (e *Engine) With(s Settings) *Engine {
	c := *e
	c.settings = s
	return &c
}

// logTo is where the log of a request goes that is to go to standard error.
func (e *Engine) logTo() io.Writer {
	if e.settings.Log != nil {
		return e.settings.Log
	}
	return os.Stderr
}
