package plan

import (
	"context"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/kinds"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// Options are what whoever asks for the restore has said, as far as a plan depends on it.
type Options struct {
	// Arch is the architecture of the machine; 0 plans for any.
	Arch snapshot.Arch
	// ShellJob lets the tree become part of the session and, where its root was no group leader, the process group of
	// whoever restores it, and use that terminal.
	ShellJob bool
	// Inherit are the keys of files that are handed in instead of being opened: "pipe:[123]", "tty[8801:1c]", "var/log/x"
	// for a path without its first slash, or the key of an external file.
	Inherit []string
}

// A Plan is what a restore will do.
type Plan struct {
	Tree    *snapshot.Tree
	Options Options
	Steps   []Step
	Opens   []Open
	Watches []Watch
	Memory  []Memory
	Births  map[int][]Step // of the threads of processes, by their numbers, in which these are not all alike, where Steps has none of them
	Notes   []string       // what is worth to be said, though it is no reason to refuse
}

// Make plans the restore of a directory. Its error is an [*images.Refusal] with every reason there is, or the context's when that has
// ended: images of many processes, or with many runs of pages, take a while.
func Make(ctx context.Context, d image.Dir, o Options) (*Plan, error) {
	r := new(images.Report)
	r.Until(ctx)
	set := images.Read(d, r)
	p := &Plan{Options: o, Tree: kinds.Decode(set, r)}
	for _, part := range []func(){
		func() { p.check(set, r) },
		func() { p.Steps = shape(p.Tree, o.ShellJob, r) },
		func() { p.births(r) },
		func() { p.threadTerminals(r) },
		func() { p.openFiles(r) },
		func() { p.watch(r) },
		func() { p.memory(d, r) },
		p.placeFills,
	} {
		if r.Stopped() {
			return nil, context.Cause(ctx)
		}
		part()
	}
	if r.Stopped() {
		return nil, context.Cause(ctx)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	p.Notes = r.Notes()
	return p, nil
}
