// Package mm is the state "address spaces": mappings, and the addresses that the kernel keeps for /proc and brk. In images it is
// mm-PID.img. The pages are not in it.
//
//   - Collect: smaps; stat; auxv; brk, dumpable and THP by prctl in the batch of the first thread. [vvar] and
//     [vvar_vclock] are one mapping in images. Guard pages are listed after all mappings.
//   - Apply has two parts. Map: everything is unmapped but an area in a hole of the image's address space (plan.Plan.Hole); the
//     vDSO where it was, then mappings. Seal, when they are filled: protection of what had to be written, advice, guards, locks;
//     last PR_SET_MM_MAP, which wants the mappings it names to be there, and the exe link, which wants those of the old one to
//     be gone.
package mm

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// maxAuxv is how many words of the auxiliary vector CRIU takes. A longer one is for stasis only.
const maxAuxv = 46

// Fields of a mapping's extension: its name; whether it is accounted, where that is not what one would think; whether it is
// locked as it is touched.
const (
	extName        = 1
	extAccounted   = 2
	extLockOnFault = 3
)

// Fields of an address space's extension.
const (
	extLockFuture = 1
	extMergeAny   = 2
)

// Encode writes the address spaces, each for the first task that has it.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	spaces := make(map[snapshot.ObjectID]*snapshot.Space)
	for _, s := range from.Spaces {
		spaces[s.ID] = s
	}
	done := make(map[snapshot.ObjectID]bool)
	for p, t := range to.Alive(from) {
		if done[t.Space] {
			continue
		}
		done[t.Space] = true
		where := image.MM.File(uint64(p.Entry.PID))
		s := spaces[t.Space]
		if s == nil {
			r.Unsupported(where, "address space %d is not in the snapshot", t.Space)
			continue
		}
		p.MM = encodeSpace(where, s, to.VMAs(len(s.VMAs)+len(s.Guards)), r)
		if len(s.Auxv) > maxAuxv {
			to.StasisOnly()
		}
	}
}

func encodeSpace(where string, s *snapshot.Space, room []entry.VMA, r *images.Report) *entry.MM {
	e := &entry.MM{
		MMStartCode: s.StartCode, MMEndCode: s.EndCode, MMStartData: s.StartData, MMEndData: s.EndData, MMStartStack: s.StartStack,
		MMStartBrk: s.StartBrk, MMBrk: s.Brk, MMArgStart: s.ArgStart, MMArgEnd: s.ArgEnd, MMEnvStart: s.EnvStart, MMEnvEnd: s.EnvEnd,
		ExeFileID: uint32(s.Exe), MMSavedAuxv: s.Auxv, Dumpable: new(int32(s.Dumpable)), THPDisabled: &s.THPDisabled,
	}
	var ext images.Extension
	if s.LockFuture != snapshot.LockNone {
		ext.SetNumber(extLockFuture, uint64(s.LockFuture))
	}
	if s.MergeAny {
		ext.SetNumber(extMergeAny, 1)
	}
	e.Unknown = ext.AppendTo(e.Unknown)
	e.VMAs = room
	for i := range s.VMAs {
		e.VMAs = append(e.VMAs, encodeVMA(where, &s.VMAs[i], r))
	}
	for _, g := range s.Guards {
		e.VMAs = append(e.VMAs, entry.VMA{Start: g.Start, End: g.End, FD: -1, Status: entry.VMAGuard})
	}
	return e
}

// statuses are the bits that say what a mapping is.
var statuses = [...]uint32{
	snapshot.AnonPrivate: entry.VMARegular | entry.VMAAnonPrivate,
	snapshot.FilePrivate: entry.VMARegular | entry.VMAFilePrivate,
	snapshot.FileShared:  entry.VMARegular | entry.VMAFileShared,
	snapshot.VDSO:        entry.VMARegular | entry.VMAAnonPrivate | entry.VMAVDSO,
	snapshot.VVar:        entry.VMARegular | entry.VMAAnonPrivate | entry.VMAVvar,
	snapshot.VSyscall:    entry.VMAAnonPrivate | entry.VMAVsyscall,
	snapshot.AnonShared:  entry.VMARegular | entry.VMAAnonShared,
	snapshot.SysV:        entry.VMARegular | entry.VMAAnonShared | entry.VMASysVIPC,
	snapshot.PacketRing:  entry.VMARegular | entry.VMASocket,
	snapshot.AIORing:     entry.VMARegular | entry.VMAAnonPrivate | entry.VMAAIORing,
	snapshot.MemFD:       entry.VMARegular | entry.VMAAnonShared | entry.VMAMemFD,
	snapshot.ShadowStack: entry.VMARegular | entry.VMAAnonPrivate | entry.VMAShadowStack,
	snapshot.Plugin:      entry.VMARegular | entry.VMAExtPlugin,
}

func encodeVMA(where string, v *snapshot.VMA, r *images.Report) entry.VMA {
	e := entry.VMA{Start: v.Start, End: v.End, PgOff: v.Offset, ShmID: v.Segment, Prot: v.Prot, Flags: v.Flags, FD: -1}
	if v.Kind == 0 || int(v.Kind) >= len(statuses) {
		r.Unsupported(where, "mapping %#x-%#x is of an unknown kind", v.Start, v.End)
		return e
	}
	e.Status = statuses[v.Kind]
	if v.Kind.OfFile() {
		e.ShmID, e.FDFlags = uint64(v.File), &v.OpenFlags
	}
	if v.Heap {
		e.Status |= entry.VMAHeap
	}
	if v.Unbound {
		e.Status |= entry.VMANotAccountable
	}
	if v.Advice != 0 {
		e.Madv = &v.Advice
	}
	var ext images.Extension
	if v.Name != "" {
		ext.SetBytes(extName, []byte(v.Name))
	}
	if v.Accounted != v.LikelyAccounted() {
		ext.SetNumber(extAccounted, number(v.Accounted))
	}
	if v.LockOnFault {
		ext.SetNumber(extLockOnFault, 1)
	}
	e.Unknown = ext.AppendTo(e.Unknown)
	return e
}

func number(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
