//go:build amd64

package eventfd

import (
	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the eventfd files.
func Collect(t *collect.Tree) error {
	for _, f := range t.Files.All {
		info := f.Info.EventFD
		if f.Object != nil || f.FD < 0 || info == nil {
			continue
		}
		if !info.SemaphoreKnown {
			// Before 6.5 nobody can tell without taking a count out of it.
			t.Report.Note("%s: this kernel does not tell whether it is a semaphore; it is taken for none", f.Where())
		}
		f.Object = &snapshot.EventFD{Counter: info.Count, Semaphore: info.Semaphore}
	}
	return nil
}
