//go:build amd64

package engine

import "errors"

// An undoStack has what is to be done so that everything is as it was. Each step that changes something puts its reverse there
// before it acts.
type undoStack struct {
	steps []func() error
}

func (u *undoStack) push(f func() error) { u.steps = append(u.steps, f) }

// undo takes everything back, the last first, whatever fails.
func (u *undoStack) undo() error {
	var errs []error
	for len(u.steps) > 0 {
		last := len(u.steps) - 1
		f := u.steps[last]
		u.steps = u.steps[:last]
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// forget keeps what was done.
func (u *undoStack) forget() { u.steps = nil }
