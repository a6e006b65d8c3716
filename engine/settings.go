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
	// Stage is told of the stages of an operation as they come, by the names that notifications have, and of StagePages; nil for nobody.
	// It has no say: unlike for one who asks to be notified, nothing is put in order to be looked at. The operation goes on when it
	// returns.
	Stage func(name string)
}

// StagePages is the stage in which a dump writes the memory of a large process, the first one if there are several.
const StagePages = "pages"

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

// stage tells of a stage.
func (s *Settings) stage(name string) {
	if s.Stage != nil {
		s.Stage(name)
	}
}

// out is where statistics are printed.
func (e *Engine) out() io.Writer {
	if e.settings.Out != nil {
		return e.settings.Out
	}
	return os.Stdout
}
