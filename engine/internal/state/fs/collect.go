//go:build amd64

package fs

import (
	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect reads the links and the umask.
func Collect(t *collect.Tree) error {
	for p := range t.Alive() {
		if !p.FS {
			continue
		}
		status, err := p.Status()
		if err != nil {
			return err
		}
		c := &snapshot.FSContext{ID: p.Task.FS, Umask: &status.Umask}
		for _, f := range []struct {
			name string
			to   *snapshot.FileID
		}{{"cwd", &c.Cwd}, {"root", &c.Root}} {
			link, err := p.Dir.Link(f.name)
			if err != nil {
				return err
			}
			*f.to = t.Named(p, f.name, link, unix.O_DIRECTORY).ID
		}
		t.Snapshot.FSContexts = append(t.Snapshot.FSContexts, c)
	}
	return nil
}
