//go:build amd64

package signalfd

import (
	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the signalfd files.
func Collect(t *collect.Tree) error {
	for _, f := range t.Files.All {
		if f.Object == nil && f.FD >= 0 && f.Info.SigMask != nil {
			f.Object = &snapshot.SignalFD{Mask: snapshot.SigSet(*f.Info.SigMask)}
		}
	}
	return nil
}
