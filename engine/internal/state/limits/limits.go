// Package limits is the state "resource limits". In images it is in core-PID.img.
//
//   - Collect reads /proc/PID/limits, which needs no capability; prlimit needs CAP_SYS_RESOURCE for processes of
//     other users.
//   - Apply: prlimit by the process itself, after all that a limit could forbid (descriptors, memory, timers) and before the credentials.
package limits

import (
	"slices"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// number is how many limits Linux has: RLIM_NLIMITS.
const number = 16

// Encode writes the limits.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for p, t := range to.Alive(from) {
		last := &to.Limits
		if last.As == nil || !slices.Equal(last.Of, t.Limits) {
			last.Of, last.As = t.Limits, &entry.TaskRlimits{Rlimits: make([]entry.Rlimit, 0, len(t.Limits))}
			for _, l := range t.Limits {
				last.As.Rlimits = append(last.As.Rlimits, entry.Rlimit{Cur: l.Soft, Max: l.Hard})
			}
		}
		p.TC().Rlimits = last.As
	}
}

// Decode reads the limits.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		e := p.TC().Rlimits
		if e == nil {
			r.Unsupported(p.Core(), "resource limits are missing; CRIU before 1.4 had them elsewhere")
			continue
		}
		r.Unknown(p.Core(), e, e.Unknown)
		if len(e.Rlimits) > number {
			r.Unsupported(p.Core(), "%d resource limits; Linux has %d that are known", len(e.Rlimits), number)
			continue
		}
		for i, l := range e.Rlimits {
			if l.Cur > l.Max {
				r.Damaged(p.Core(), "resource limit %d is %d, above its maximum %d", i, l.Cur, l.Max)
			}
			t.Limits = append(t.Limits, snapshot.Limit{Soft: l.Cur, Hard: l.Max})
		}
	}
}
