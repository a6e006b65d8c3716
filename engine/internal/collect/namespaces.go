//go:build amd64

package collect

import (
	"errors"
	"io/fs"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

// Namespaces reads the namespaces of a process. Kinds that the kernel does not have are 0.
func Namespaces(t *Tree, d proc.Dir) (snapshot.Namespaces, error) {
	var n snapshot.Namespaces
	for _, ns := range []struct {
		kind string
		to   *uint32
	}{
		{"pid", &n.PID}, {"net", &n.Net}, {"ipc", &n.IPC}, {"uts", &n.UTS}, {"time", &n.Time}, {"mnt", &n.Mount}, {"user", &n.User}, {"cgroup", &n.Cgroup},
	} {
		id, err := d.NS(ns.kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, err
		}
		*ns.to = t.Namespace(id)
	}
	return n, nil
}
