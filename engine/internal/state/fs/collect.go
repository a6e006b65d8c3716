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
		if p.FS {
			status, err := p.Status()
			if err != nil {
				return err
			}
			if err := context(t, p.Holder(), p.Task.FS, status.Umask); err != nil {
				return err
			}
		}
		for _, th := range p.Threads {
			if !th.FS {
				continue
			}
			status, err := th.Status()
			if err != nil {
				return err
			}
			if err := context(t, th.Holder(), th.Snapshot.FS, status.Umask); err != nil {
				return err
			}
		}
	}
	return nil
}

func context(t *collect.Tree, h collect.Holder, id snapshot.ObjectID, umask uint32) error {
	c := &snapshot.FSContext{ID: id, Umask: &umask}
	for _, f := range []struct {
		name string
		to   *snapshot.FileID
	}{{"cwd", &c.Cwd}, {"root", &c.Root}} {
		link, err := h.Dir.Link(f.name)
		if err != nil {
			return err
		}
		*f.to = t.Named(h, f.name, link, unix.O_DIRECTORY).ID
	}
	t.Snapshot.FSContexts = append(t.Snapshot.FSContexts, c)
	return nil
}
