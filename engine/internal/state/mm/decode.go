package mm

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

const (
	atPageSize = 6

	mapShared       = 0x01
	mapPrivate      = 0x02
	mapAnonymous    = 0x20
	mapHugeTLB      = 0x40000
	mapDroppable    = 0x08
	protAll         = 7
	defaultPageSize = 4096
)

// mapKnown are the MAP_ bits that a mapping may have: those of its type, GROWSDOWN, DENYWRITE, EXECUTABLE, LOCKED, NORESERVE,
// POPULATE, NONBLOCK, STACK, SYNC.
const mapKnown = mapShared | mapPrivate | mapAnonymous | 0x100 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000 | 0x80000

// openAccMode are the bits that OpenFlags may have: O_ACCMODE, and O_LARGEFILE, which CRIU lets through.
const openAccMode = 3 | 0x8000

// Decode reads the address spaces. It also finds the page size of the machine, which every process was told in its auxiliary
// vector.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for p, t := range from.Alive(to) {
		if p.MM == nil {
			continue // another task has it, or the reader has said that it is missing
		}
		where := image.MM.File(uint64(p.Entry.PID))
		r.Unknown(where, p.MM, p.MM.Unknown)
		size, known := pageSize(p.MM)
		switch {
		case !known && to.PageSize == 0:
			// A vector without it is legal, if odd: PR_SET_MM can write any.
			size = defaultPageSize
		case !known:
			size = to.PageSize
		case to.PageSize != 0 && to.PageSize != size:
			r.Damaged(where, "pages of %d bytes, other processes have %d", size, to.PageSize)
		}
		if size < 4096 || size > 1<<16 || size&(size-1) != 0 {
			r.Damaged(where, "pages of %d bytes", size)
			continue
		}
		if to.PageSize == 0 {
			to.PageSize = size
		}
		d := decoder{r: r, where: where, pageSize: size, arch: to.Arch, set: from}
		s := d.space(p.MM)
		s.ID = t.Space
		to.Spaces = append(to.Spaces, s)
	}
}

func pageSize(e *entry.MM) (size uint64, known bool) {
	for i := 0; i+1 < len(e.MMSavedAuxv); i += 2 {
		if e.MMSavedAuxv[i] == atPageSize {
			return e.MMSavedAuxv[i+1], true
		}
	}
	return 0, false
}

type decoder struct {
	r        *images.Report
	where    string
	pageSize uint64
	arch     snapshot.Arch
	set      *images.Set
}

func (d *decoder) space(e *entry.MM) *snapshot.Space {
	s := &snapshot.Space{
		StartCode: e.MMStartCode, EndCode: e.MMEndCode, StartData: e.MMStartData, EndData: e.MMEndData, StartStack: e.MMStartStack,
		StartBrk: e.MMStartBrk, Brk: e.MMBrk, ArgStart: e.MMArgStart, ArgEnd: e.MMArgEnd, EnvStart: e.MMEnvStart, EnvEnd: e.MMEnvEnd,
		Auxv: e.MMSavedAuxv, Exe: snapshot.FileID(e.ExeFileID), Dumpable: 1, THPDisabled: e.GetTHPDisabled(),
	}
	if e.Dumpable != nil {
		s.Dumpable = int(*e.Dumpable)
	}
	if ext, err := images.ParseExtension(e.Unknown); err != nil {
		d.r.Damaged(d.where, "its extension: %v", err)
	} else {
		if n := ext.Number(extLockFuture); n != nil {
			s.LockFuture = snapshot.FutureLock(min(*n, uint64(snapshot.LockOnFault)))
		}
		s.MergeAny = ext.Number(extMergeAny) != nil
	}
	if s.Dumpable < 0 || s.Dumpable > 2 {
		d.r.Damaged(d.where, "dumpable is %d", s.Dumpable)
	}
	if len(s.Auxv)%2 != 0 || len(s.Auxv) > 4*maxAuxv {
		d.r.Damaged(d.where, "an auxiliary vector of %d words", len(s.Auxv))
	}
	if d.set.File(e.ExeFileID) == nil {
		d.r.Damaged(d.where, "the program, file %d, is not in %s", e.ExeFileID, image.Files.File(0))
	}
	if len(e.AIOs) > 0 {
		d.r.Unsupported(d.where, "%d contexts of asynchronous I/O (io_setup)", len(e.AIOs))
	}
	s.VMAs = make([]snapshot.VMA, 0, len(e.VMAs))
	end := uint64(0)
	for i := range e.VMAs {
		v := &e.VMAs[i]
		if !d.bounds(v) {
			continue
		}
		if v.Status&entry.VMAGuard != 0 {
			s.Guards = append(s.Guards, snapshot.Range{Start: v.Start, End: v.End})
			continue
		}
		if v.Start < end {
			d.r.Damaged(d.where, "mapping %#x-%#x begins before the end of the one before, %#x", v.Start, v.End, end)
			continue
		}
		end = v.End
		s.VMAs = append(s.VMAs, d.vma(v))
	}
	d.guards(s)
	return s
}

// bounds checks where a mapping is.
func (d *decoder) bounds(v *entry.VMA) bool {
	mask := d.pageSize - 1
	switch {
	case v.Start >= v.End, v.Start&mask != 0, v.End&mask != 0:
		d.r.Damaged(d.where, "mapping %#x-%#x is not one or more pages", v.Start, v.End)
	case v.Status&entry.VMAVsyscall != 0:
		if page := d.arch.VSyscall(); v.Start != page.Start || v.End != page.End {
			d.r.Damaged(d.where, "mapping %#x-%#x is not the vsyscall page", v.Start, v.End)
			return false
		}
		return true
	case d.arch.UserEnd() != 0 && v.End > d.arch.UserEnd():
		d.r.Damaged(d.where, "mapping %#x-%#x is not in user space, which ends at %#x", v.Start, v.End, d.arch.UserEnd())
	default:
		return true
	}
	return false
}

// kindBits are the bits of a status that name a kind; a mapping has those of one entry of statuses.
const kindBits = entry.VMAVsyscall | entry.VMAVDSO | entry.VMAFilePrivate | entry.VMAFileShared | entry.VMAAnonShared | entry.VMAAnonPrivate |
	entry.VMASysVIPC | entry.VMASocket | entry.VMAVvar | entry.VMAAIORing | entry.VMAMemFD | entry.VMAShadowStack | entry.VMAExtPlugin

func kindOf(status uint32) snapshot.VMAKind {
	for kind, bits := range statuses {
		if kind > 0 && bits&kindBits == status&kindBits {
			return snapshot.VMAKind(kind)
		}
	}
	switch {
	case status&entry.VMAExtPlugin != 0:
		return snapshot.Plugin
	case status&entry.VMAMemFD != 0:
		return snapshot.MemFD
	}
	return 0
}

func (d *decoder) vma(e *entry.VMA) snapshot.VMA {
	v := snapshot.VMA{
		Range: snapshot.Range{Start: e.Start, End: e.End}, Kind: kindOf(e.Status), Prot: e.Prot, Flags: e.Flags, Offset: e.PgOff,
		OpenFlags: e.GetFDFlags(), Advice: e.GetMadv(), Heap: e.Status&entry.VMAHeap != 0, Unbound: e.Status&entry.VMANotAccountable != 0,
	}
	bad := func(format string, args ...any) {
		d.r.Damaged(d.where, "mapping %#x-%#x: "+format, append([]any{e.Start, e.End}, args...)...)
	}
	d.r.Unknown(d.where, e, e.Unknown)
	known := uint32(kindBits | entry.VMARegular | entry.VMAStack | entry.VMAHeap | entry.VMANotAccountable)
	switch {
	case v.Kind == 0 || e.Status&^known != 0:
		d.r.Unsupported(d.where, "mapping %#x-%#x: status %#x is not known", e.Start, e.End, e.Status)
		return v
	case v.Kind > snapshot.VSyscall:
		d.r.Unsupported(d.where, "mapping %#x-%#x is %s: not restored by the built-in engine", e.Start, e.End, v.Kind)
		return v
	case v.Flags&mapHugeTLB != 0:
		d.r.Unsupported(d.where, "mapping %#x-%#x is of huge pages (MAP_HUGETLB)", e.Start, e.End)
		return v
	case v.Flags&mapDroppable != 0 && v.Flags&(mapShared|mapPrivate) == 0:
		d.r.Unsupported(d.where, "mapping %#x-%#x is MAP_DROPPABLE", e.Start, e.End)
		return v
	}
	if v.Prot&^protAll != 0 {
		bad("protection %#x", v.Prot)
	}
	wantType, wantAnon := uint32(mapPrivate), uint32(mapAnonymous)
	if v.Kind.OfFile() {
		wantAnon = 0
	}
	if v.Kind == snapshot.FileShared {
		wantType = mapShared
	}
	if v.Flags&(mapShared|mapPrivate) != wantType || v.Flags&mapAnonymous != wantAnon || v.Flags&^uint32(mapKnown) != 0 {
		bad("flags %#x are not those of memory that is %s", v.Flags, v.Kind)
	}
	if v.Kind.OfFile() {
		v.File = snapshot.FileID(e.ShmID)
		if v.OpenFlags&^openAccMode != 0 || v.OpenFlags&3 == 3 {
			bad("a file that is to be opened with %#o", v.OpenFlags)
		}
		if v.Offset%d.pageSize != 0 || v.Offset > 1<<63-1-v.Len() {
			bad("offset %#x in the file", v.Offset)
		}
		if e.ShmID != uint64(uint32(e.ShmID)) || d.set.File(uint32(e.ShmID)) == nil {
			bad("its file %d is not in %s", e.ShmID, image.Files.File(0))
		}
	} else if v.Offset != 0 && !v.Kind.OfKernel() {
		// Anonymous memory has an offset by its address that nothing shows; images have 0.
		v.Offset = 0
	}
	if ext, err := images.ParseExtension(e.Unknown); err != nil {
		bad("its extension: %v", err)
	} else {
		d.extended(&v, &ext)
	}
	return v
}

// extended reads what CRIU does not keep of a mapping.
func (d *decoder) extended(v *snapshot.VMA, ext *images.Extension) {
	if name, ok := ext.Bytes(extName); ok {
		v.Name = string(name)
	}
	v.Accounted = v.LikelyAccounted()
	if n := ext.Number(extAccounted); n != nil {
		v.Accounted = *n != 0
	}
	if n := ext.Number(extLockOnFault); n != nil {
		v.LockOnFault = *n != 0
	}
}

// guards checks that guard pages are in mappings.
func (d *decoder) guards(s *snapshot.Space) {
	i := 0
	end := uint64(0)
	for _, g := range s.Guards {
		if g.Start < end {
			d.r.Damaged(d.where, "guard pages %#x-%#x begin before the end of those before, %#x", g.Start, g.End, end)
			return
		}
		end = g.End
		for i < len(s.VMAs) && s.VMAs[i].End <= g.Start {
			i++
		}
		if i == len(s.VMAs) || s.VMAs[i].Start > g.Start || s.VMAs[i].End < g.End {
			d.r.Damaged(d.where, "guard pages %#x-%#x are in no mapping", g.Start, g.End)
			return
		}
	}
}
