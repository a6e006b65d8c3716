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
	// Out is where statistics are printed, if they are asked for; nil for standard output.
	Out io.Writer
	// FileValidation says how a restore tells that a file is the one that was open: "filesize" by its size, "buildid" or "" also
	// by the build ID that programs and libraries have.
	FileValidation string
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

// out is where statistics are printed.
func (e *Engine) out() io.Writer {
	if e.settings.Out != nil {
		return e.settings.Out
	}
	return os.Stdout
}
