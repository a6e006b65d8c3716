//go:build amd64

package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// open opens the files of the plan.
func (r *restore) open() error {
	for _, o := range r.plan.Opens {
		reg, ok := o.File.Object.(*snapshot.Regular)
		if !ok {
			return fmt.Errorf("file %d is a %s, which cannot be opened yet: %w", o.File.ID, o.File.Object.Kind(), errors.ErrUnsupported)
		}
		for _, fl := range o.Map {
			fd, err := unix.Open(reg.Path.Name, int(fl), 0)
			if err != nil {
				return fmt.Errorf("%s: %w", reg.Path.Name, err)
			}
			r.files.AddMapping(o.File.ID, fl, apply.NewFile(fd, reg.Path.Name))
		}
		if o.Itself {
			fd, err := unix.Open(reg.Path.Name, int(o.File.Flags), 0)
			if err != nil {
				return fmt.Errorf("%s: %w", reg.Path.Name, err)
			}
			_, _ = unix.Seek(fd, int64(reg.Pos), unix.SEEK_SET)
			r.files.Add(o.File.ID, apply.NewFile(fd, reg.Path.Name))
		}
	}
	return nil
}
