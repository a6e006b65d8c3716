//go:build amd64

package engine

import (
	"context"

	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// PlanOptions are what of a request to restore a plan depends on.
type PlanOptions struct {
	ShellJob bool     // the tree belongs to the caller's session and terminal
	Inherit  []string // the keys of files that are handed in
}

// Plan returns, for people to read, what a restore of the images will do: nothing is made, no rights are needed, and of this
// machine nothing but its architecture is looked at. Its error has every reason why the images cannot be restored, or is that of
// the context when it ends before.
func Plan(ctx context.Context, dir image.Dir, o PlanOptions) (string, error) {
	p, err := plan.Make(ctx, dir, plan.Options{Arch: snapshot.AMD64, ShellJob: o.ShellJob, Inherit: o.Inherit})
	if err != nil {
		return "", err
	}
	return p.String(), nil
}
