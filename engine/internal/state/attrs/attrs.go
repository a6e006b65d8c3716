// Package attrs is the state "small attributes of processes": personality, child subreaper, login uid, the out-of-memory
// score, membarrier registrations, what a core dump has. In images it is in core-PID.img; what CRIU does not save is in an
// extension field there. (Attributes of the address space, such as dumpable, are in package mm.)
//
//   - Collect: files of /proc/PID, and prctl and membarrier in the batch of the first thread.
//   - Apply: personality when the address space is made, since it may add to the protection of mappings; the rest anywhere.
//     The kernel lets only some write loginuid, and oom_score_adj only upwards without CAP_SYS_RESOURCE: a value that is already
//     right is not written.
package attrs

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// extCoreFilter is the field of the extension that has /proc/PID/coredump_filter.
const extCoreFilter = 1

// Encode writes the attributes.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for p, t := range to.Alive(from) {
		tc := p.TC()
		tc.Personality = t.Personality
		tc.ChildSubreaper = &t.Subreaper
		tc.LoginUID, tc.OOMScoreAdj = t.LoginUID, t.OOMScoreAdj
		if t.Membarrier != 0 {
			tc.MembarrierRegistrationMask = &t.Membarrier
		}
		if t.CoreFilter != nil {
			var ext images.Extension
			ext.SetNumber(extCoreFilter, uint64(*t.CoreFilter))
			tc.Unknown = ext.AppendTo(tc.Unknown)
		}
	}
}

// Decode reads the attributes.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		tc := p.TC()
		t.Personality, t.Subreaper = tc.Personality, tc.GetChildSubreaper()
		t.LoginUID, t.OOMScoreAdj = tc.LoginUID, tc.OOMScoreAdj
		t.Membarrier = tc.GetMembarrierRegistrationMask()
		if v := t.OOMScoreAdj; v != nil && (*v < -1000 || *v > 1000) {
			r.Damaged(p.Core(), "oom_score_adj is %d", *v)
		}
		ext, err := images.ParseExtension(tc.Unknown)
		if err != nil {
			r.Damaged(p.Core(), "the extension of %s: %v", tc.Schema(), err)
		}
		if n := ext.Number(extCoreFilter); n != nil {
			t.CoreFilter = new(uint32(*n))
		}
	}
}
