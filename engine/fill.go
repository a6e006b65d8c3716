//go:build amd64

package engine

import (
	"fmt"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/pages"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
)

// fates are those of the plan, as package pages has them.
var fates = [...]pages.Fate{plan.Write: pages.FillWrite, plan.Keep: pages.FillKeep, plan.Drop: pages.FillDrop}

// fillPages gives a process its pages.
func (r *restore) fillPages(t *apply.Task, m *plan.Memory) error {
	f := &pages.Filler{Kernel: r.kernel, Process: t.Remote, Space: t.Space, Expect: m.Pages * pages.Size, Inherited: m.Inherit, Buffer: &r.buffer}
	kernels := kernelRanges(t.Space)
	err := r.plan.Walk(r.dir, m, &r.compared, func(run plan.Run) error {
		// The kernel has made its own. A run may begin in one of these mappings and go on in another.
		return outside(kernels, run.Range, func(part snapshot.Range) error {
			return f.Add(pages.FillRun{Range: part, Fate: fates[run.Fate], File: run.File, Offset: run.Offset + int64(part.Start-run.Start)})
		})
	}, f.Finish)
	r.pages += f.Written
	if err != nil {
		return fmt.Errorf("%s: pages: %w", t.Where(), err)
	}
	return nil
}

// kernelRanges returns where the mappings of the kernel's are.
func kernelRanges(s *snapshot.Space) []snapshot.Range {
	var ranges []snapshot.Range
	for i := range s.VMAs {
		if s.VMAs[i].Kind.OfKernel() {
			ranges = append(ranges, s.VMAs[i].Range)
		}
	}
	return ranges
}

// outside calls a function with the parts of a range that are in none of others, which ascend.
func outside(others []snapshot.Range, r snapshot.Range, f func(snapshot.Range) error) error {
	for _, v := range others {
		if v.End <= r.Start || v.Start >= r.End {
			continue
		}
		if v.Start > r.Start {
			if err := f(snapshot.Range{Start: r.Start, End: v.Start}); err != nil {
				return err
			}
		}
		r.Start = min(v.End, r.End)
	}
	if r.Start == r.End {
		return nil
	}
	return f(r)
}
