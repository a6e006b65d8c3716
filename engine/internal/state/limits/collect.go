//go:build amd64

package limits

import (
	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect reads the limits.
func Collect(t *collect.Tree) error {
	for p := range t.Alive() {
		all, err := p.Dir.Limits()
		if err != nil {
			return err
		}
		p.Task.Limits = make([]snapshot.Limit, 0, len(all))
		for _, l := range all {
			p.Task.Limits = append(p.Task.Limits, snapshot.Limit{Soft: l.Soft, Hard: l.Hard})
		}
	}
	return nil
}
