//go:build amd64

package mem

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// Collect reads the bounds and the mappings. mapped returns the file of a mapping.
func Collect(p *remote.Process, dir proc.Dir, mapped func(proc.Mapping, proc.VMFlags) (*snapshot.File, error), s *snapshot.MM) error {
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	s.StartCode, s.EndCode, s.StartData, s.EndData = st.StartCode, st.EndCode, st.StartData, st.EndData
	s.StartStack, s.StartBrk = st.StartStack, st.StartBrk
	s.ArgStart, s.ArgEnd, s.EnvStart, s.EnvEnd = st.ArgStart, st.ArgEnd, st.EnvStart, st.EnvEnd
	if s.Auxv, err = dir.Auxv(8); err != nil {
		return err
	}
	calls := []remote.Call{
		remote.NewCall(unix.SYS_BRK, 0),
		remote.NewCall(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE),
		remote.NewCall(unix.SYS_PRCTL, unix.PR_GET_THP_DISABLE),
	}
	if err := errors.Join(p.Run(calls), remote.Must(calls)); err != nil {
		return err
	}
	s.Brk, s.Dumpable, s.THPDisabled = calls[0].Ret, int(calls[1].Ret), calls[2].Ret != 0
	return dir.Smaps(func(m *proc.Smap) error {
		if p.IsOurs(m.Start) {
			return nil
		}
		v, err := mapping(m, mapped)
		if err != nil {
			return fmt.Errorf("process %d: mapping %x-%x %s: %w", p.PID, m.Start, m.End, m.Path, err)
		}
		// The kernel shows the clock pages of vvar apart; in images they are one.
		if n := len(s.VMAs); v.Kind == snapshot.VMAVvar && n > 0 && s.VMAs[n-1].Kind == snapshot.VMAVvar && s.VMAs[n-1].End == v.Start {
			s.VMAs[n-1].End = v.End
			return nil
		}
		s.VMAs = append(s.VMAs, v)
		return nil
	})
}

// advice is what madvise has set, by the flags that show it.
func advice(f proc.VMFlags) (a uint64) {
	for _, k := range []struct {
		flag proc.VMFlags
		madv int
	}{
		{proc.VMDontDump, unix.MADV_DONTDUMP}, {proc.VMDontCopy, unix.MADV_DONTFORK}, {proc.VMHugePage, unix.MADV_HUGEPAGE},
		{proc.VMNoHugePage, unix.MADV_NOHUGEPAGE}, {proc.VMMergeable, unix.MADV_MERGEABLE}, {proc.VMRandRead, unix.MADV_RANDOM},
		{proc.VMSeqRead, unix.MADV_SEQUENTIAL}, {proc.VMWipeOnFork, unix.MADV_WIPEONFORK},
	} {
		if f&k.flag != 0 {
			a |= 1 << k.madv
		}
	}
	return a
}

func mapping(m *proc.Smap, mapped func(proc.Mapping, proc.VMFlags) (*snapshot.File, error)) (snapshot.VMA, error) {
	v := snapshot.VMA{
		Start: m.Start, End: m.End, Shared: m.Perm&proc.PermShared != 0, Advice: advice(m.Flags),
		GrowsDown: m.Flags&proc.VMGrowsDown != 0, NoReserve: m.Flags&proc.VMNoReserve != 0, Locked: m.Flags&proc.VMLocked != 0,
	}
	for _, b := range []struct {
		perm proc.Perm
		prot uint32
	}{{proc.PermRead, unix.PROT_READ}, {proc.PermWrite, unix.PROT_WRITE}, {proc.PermExec, unix.PROT_EXEC}} {
		if m.Perm&b.perm != 0 {
			v.Prot |= b.prot
		}
	}
	for _, bad := range []struct {
		flag proc.VMFlags
		name string
	}{
		{proc.VMHugeTLB, "of huge pages (MAP_HUGETLB)"}, {proc.VMShadowStack, "a shadow stack"}, {proc.VMSealed, "sealed (mseal)"},
		{proc.VMDroppable, "droppable (MAP_DROPPABLE)"}, {proc.VMUffdMissing | proc.VMUffdWP | proc.VMUffdMinor, "registered with a userfaultfd"},
		{proc.VMMaybeGuard, "one that may have guard pages (MADV_GUARD_INSTALL)"},
	} {
		if m.Flags&bad.flag != 0 {
			return v, fmt.Errorf("%w: it is %s", errors.ErrUnsupported, bad.name)
		}
	}
	switch {
	case m.Path == "[vsyscall]":
		v.Kind = snapshot.VMAVsyscall
	case m.Path == "[vdso]":
		v.Kind, v.Advice = snapshot.VMAVDSO, 0
	case m.Path == "[vvar]" || m.Path == "[vvar_vclock]":
		v.Kind, v.Advice = snapshot.VMAVvar, 1<<unix.MADV_DONTDUMP
	case m.Flags&(proc.VMIO|proc.VMPFNMap) != 0:
		return v, fmt.Errorf("%w: it is memory of a device", errors.ErrUnsupported)
	case strings.HasPrefix(m.Path, "/dev/zero (deleted)"):
		return v, fmt.Errorf("%w: it is shared anonymous memory", errors.ErrUnsupported)
	case strings.HasPrefix(m.Path, "/memfd:"):
		return v, fmt.Errorf("%w: it is of a memfd", errors.ErrUnsupported)
	case strings.HasPrefix(m.Path, "/SYSV"):
		return v, fmt.Errorf("%w: it is System V shared memory", errors.ErrUnsupported)
	case m.Inode != 0:
		f, err := mapped(m.Mapping, m.Flags)
		if err != nil {
			return v, err
		}
		v.Kind, v.File, v.Offset = snapshot.VMAFile, f, m.Offset
	case v.Shared:
		return v, fmt.Errorf("%w: it is shared anonymous memory", errors.ErrUnsupported)
	case m.Path == "[heap]":
		v.Kind = snapshot.VMAHeap
	}
	return v, nil
}

// Scan finds the pages of private mappings that no file has: those that are present or swapped out, without the zero
// page and without pages of the page cache.
func Scan(k *linux.Kernel, pid int, s *snapshot.MM) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range s.VMAs {
		v := &s.VMAs[i]
		switch {
		case v.Kind == snapshot.VMAVDSO:
			s.Pages = append(s.Pages, snapshot.PageRun{Start: v.Start, End: v.End})
		case v.Shared || v.Kind == snapshot.VMAVvar || v.Kind == snapshot.VMAVsyscall:
		default:
			if err := scan(k, int(f.Fd()), v, s); err != nil {
				return fmt.Errorf("process %d: pages %x-%x: %w", pid, v.Start, v.End, err)
			}
		}
	}
	return nil
}

func scan(k *linux.Kernel, fd int, v *snapshot.VMA, s *snapshot.MM) error {
	arg := linux.PagemapScan{
		Start: v.Start, End: v.End,
		Inverted: linux.PageFile | linux.PageZero, CategoryMask: linux.PageFile | linux.PageZero,
		AnyOf: linux.PagePresent | linux.PageSwapped, ReturnMask: linux.PagePresent,
		Regions: make([]linux.PageRegion, 512),
	}
	for arg.Start < v.End {
		n, err := k.PagemapScan(fd, &arg)
		if err != nil {
			return err
		}
		for _, r := range arg.Regions[:n] {
			if last := len(s.Pages) - 1; last >= 0 && s.Pages[last].End == r.Start {
				s.Pages[last].End = r.End
				continue
			}
			s.Pages = append(s.Pages, snapshot.PageRun{Start: r.Start, End: r.End})
		}
		if arg.WalkEnd <= arg.Start {
			break
		}
		arg.Start = arg.WalkEnd
	}
	return nil
}

// Encode returns the entry of the address space. id returns the number of a file in files.img.
func Encode(s *snapshot.MM, id func(*snapshot.File) uint32) *entry.MM {
	e := &entry.MM{
		MMStartCode: s.StartCode, MMEndCode: s.EndCode, MMStartData: s.StartData, MMEndData: s.EndData,
		MMStartStack: s.StartStack, MMStartBrk: s.StartBrk, MMBrk: s.Brk, MMArgStart: s.ArgStart, MMArgEnd: s.ArgEnd,
		MMEnvStart: s.EnvStart, MMEnvEnd: s.EnvEnd, MMSavedAuxv: s.Auxv,
		Dumpable: new(int32(s.Dumpable)), THPDisabled: &s.THPDisabled,
	}
	for i := range s.VMAs {
		e.VMAs = append(e.VMAs, encodeVMA(&s.VMAs[i], id))
	}
	return e
}

func encodeVMA(v *snapshot.VMA, id func(*snapshot.File) uint32) entry.VMA {
	e := entry.VMA{Start: v.Start, End: v.End, Prot: v.Prot, FD: -1, Status: entry.VMARegular, Flags: unix.MAP_PRIVATE}
	if v.Shared {
		e.Flags = unix.MAP_SHARED
	}
	switch v.Kind {
	case snapshot.VMAVsyscall:
		e.Status = entry.VMAVsyscall | entry.VMAAnonPrivate
	case snapshot.VMAVDSO:
		e.Status |= entry.VMAVDSO | entry.VMAAnonPrivate
	case snapshot.VMAVvar:
		e.Status |= entry.VMAVvar | entry.VMAAnonPrivate
	case snapshot.VMAHeap:
		e.Status |= entry.VMAHeap | entry.VMAAnonPrivate
	case snapshot.VMAFile:
		e.ShmID, e.PgOff, e.FDFlags = uint64(id(v.File)), v.Offset, &v.File.Flags
		e.Status |= entry.VMAFilePrivate
		if v.Shared {
			e.Status = entry.VMARegular | entry.VMAFileShared
		}
	default:
		e.Status |= entry.VMAAnonPrivate
	}
	if v.File == nil {
		e.Flags |= unix.MAP_ANONYMOUS
	}
	if v.GrowsDown {
		e.Flags |= unix.MAP_GROWSDOWN
	}
	if v.NoReserve {
		e.Flags |= unix.MAP_NORESERVE
	}
	if v.Locked {
		e.Flags |= unix.MAP_LOCKED
	}
	if v.Advice != 0 {
		e.Madv = &v.Advice
	}
	return e
}
