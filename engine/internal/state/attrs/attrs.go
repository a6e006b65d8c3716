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
	"strconv"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// Fields of the extension.
const (
	extCoreFilter  = 1 // /proc/PID/coredump_filter
	extPersonality = 2 // where CRIU's own field cannot have it, see digits
)

// Encode writes the attributes.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for p, t := range to.Alive(from) {
		tc := p.TC()
		tc.Personality = decimal(t.Personality)
		tc.ChildSubreaper = &t.Subreaper
		tc.LoginUID, tc.OOMScoreAdj = t.LoginUID, t.OOMScoreAdj
		if t.Membarrier != 0 {
			tc.MembarrierRegistrationMask = &t.Membarrier
		}
		var ext images.Extension
		if t.CoreFilter != nil {
			ext.SetNumber(extCoreFilter, uint64(*t.CoreFilter))
		}
		if digits(tc.Personality) != t.Personality {
			ext.SetNumber(extPersonality, uint64(t.Personality))
		}
		tc.Unknown = ext.AppendTo(tc.Unknown)
	}
}

// Decode reads the attributes.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		tc := p.TC()
		t.Personality, t.Subreaper = digits(tc.Personality), tc.GetChildSubreaper()
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
		if n := ext.Number(extPersonality); n != nil {
			t.Personality = uint32(*n)
		}
	}
}

// decimal is the reverse of digits as far as there is one: what CRIU would write.
func decimal(personality uint32) uint32 {
	n, err := strconv.ParseUint(strconv.FormatUint(uint64(personality), 16), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// digits turns the number that CRIU writes as a personality into the one that it is: CRIU reads the hexadecimal digits of
// /proc/PID/personality as decimal ones. (It does not restore the personality, so it does not notice.)
func digits(decimal uint32) uint32 {
	n, err := strconv.ParseUint(strconv.FormatUint(uint64(decimal), 10), 16, 32)
	if err != nil {
		return decimal // more digits than the file has
	}
	return uint32(n)
}
