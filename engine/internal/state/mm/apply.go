//go:build amd64

package mm

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
)

const (
	userEnd         = 1<<47 - 4096 // TASK_SIZE_MAX with four levels of page tables
	archMapVDSO64   = 0x2003
	madvGuard       = 102        // MADV_GUARD_INSTALL (Linux 6.13)
	prSetVMA        = 0x53564d41 // PR_SET_VMA
	prSetVMAName    = 0          // PR_SET_VMA_ANON_NAME
	prSetMMMap      = 14         // PR_SET_MM_MAP
	mmMapSize       = 104        // of struct prctl_mm_map
	adviceBits      = 64
	noFile          = ^uint64(0)
	areaPage        = 4096 // of the area that package stub lays out
	fixedNoReplace  = unix.MAP_FIXED_NOREPLACE
	protectionWords = unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC
)

// before is the advice that has to be there before pages are: it decides what kind of pages they become.
const before = 1<<unix.MADV_HUGEPAGE | 1<<unix.MADV_NOHUGEPAGE

// Map makes the mappings of a process: all that it has is unmapped, but for the area and for ranges in which it keeps what it
// was forked with. Memory has its protection at once, but for such that was written once and is not any more: see [snapshot.VMA.FirstProt].
// What is to be filled must be written whatever the protection says. Advice, locks and guards follow in [Seal].
func Map(t *apply.Task, keep []snapshot.Range) error {
	unmap(t, keep)
	if start := kernelStart(t.Space); start != 0 {
		t.Batch.Do(fmt.Sprintf("map the vDSO at %#x", start), unix.SYS_ARCH_PRCTL, apply.Num(archMapVDSO64), apply.Num(start))
	}
	for left := t.Space.VMAs; len(left) > 0; {
		joined, n := snapshot.Joined(left, follows)
		v := &joined
		left = left[n:]
		if v.Kind.OfKernel() {
			continue
		}
		at := v.Start
		for _, k := range keep {
			if k.End <= v.Start || k.Start >= v.End {
				continue
			}
			kept := snapshot.Range{Start: max(k.Start, v.Start), End: min(k.End, v.End)}
			if err := mapPart(t, v, snapshot.Range{Start: at, End: kept.Start}); err != nil {
				return err
			}
			t.Batch.DoAt("protection of the memory at", kept.Start, unix.SYS_MPROTECT, apply.Num(kept.Start), apply.Num(kept.Len()), apply.Num(v.FirstProt()))
			advise(t, v, kept, before)
			at = kept.End
		}
		if err := mapPart(t, v, snapshot.Range{Start: at, End: v.End}); err != nil {
			return err
		}
	}
	return nil
}

// follows reports whether a mapping is no more than the rest of the one before, as far as they are made: the kernel would make one of the two
// at once. What tells them apart comes later.
func follows(v, next *snapshot.VMA) bool {
	switch {
	case next.Kind != v.Kind, next.Flags != v.Flags, next.FirstProt() != v.FirstProt(),
		next.Advice&before != v.Advice&before, v.Flags&unix.MAP_GROWSDOWN != 0:
		return false
	case v.Kind.OfFile():
		return next.File == v.File && next.OpenFlags == v.OpenFlags && next.Offset == v.Offset+v.Len()
	}
	return v.Kind == snapshot.AnonPrivate
}

// unmap gives back everything but the area, without its first page, which is of a file, and what is to be kept.
func unmap(t *apply.Task, keep []snapshot.Range) {
	area := t.Remote.Layout().Area
	area.Start += areaPage
	stay := slices.Clone(keep)
	at, _ := slices.BinarySearchFunc(stay, area.Start, func(r snapshot.Range, start uint64) int {
		if r.Start < start {
			return -1
		}
		return 1
	})
	stay = slices.Insert(stay, at, area)
	from := uint64(0)
	for _, r := range append(stay, snapshot.Range{Start: userEnd, End: userEnd}) {
		if r.Start > from {
			t.Batch.Do(fmt.Sprintf("unmap %#x-%#x", from, r.Start), unix.SYS_MUNMAP, apply.Num(from), apply.Num(r.Start-from))
		}
		from = r.End
	}
}

// kernelStart returns where the first mapping of the kernel's own is, 0 for none. The vsyscall page is always there.
func kernelStart(s *snapshot.Space) uint64 {
	for i := range s.VMAs {
		if k := s.VMAs[i].Kind; k == snapshot.VDSO || k == snapshot.VVar {
			return s.VMAs[i].Start
		}
	}
	return 0
}

// mapPart makes a mapping, or a part of it.
func mapPart(t *apply.Task, v *snapshot.VMA, r snapshot.Range) error {
	if r.Start >= r.End {
		return nil
	}
	fd, offset := noFile, uint64(0)
	if v.Kind.OfFile() {
		n, err := t.Tree.Files.Mapping(v.File, v.OpenFlags)
		if err != nil {
			return fmt.Errorf("%s: mapping %#x-%#x: %w", t.Where(), v.Start, v.End, err)
		}
		fd, offset = uint64(n), v.Offset+(r.Start-v.Start)
	}
	flags := uint64(v.Flags)&^unix.MAP_LOCKED | fixedNoReplace
	// Kernels before 4.17 take MAP_FIXED_NOREPLACE for a hint.
	t.Batch.Map(v.Kind.String(), apply.Num(r.Start), apply.Num(r.Len()), apply.Num(v.FirstProt()), apply.Num(flags), apply.Num(fd), apply.Num(offset))
	advise(t, v, r, before)
	return nil
}

// advise gives the advice of a mapping that is in a set.
func advise(t *apply.Task, v *snapshot.VMA, r snapshot.Range, set uint64) {
	if v.Advice&set == 0 {
		return
	}
	for bit := range adviceBits {
		if v.Advice&set>>bit&1 != 0 {
			t.Batch.Do(fmt.Sprintf("madvise(%d) of the memory at %#x", bit, r.Start), unix.SYS_MADVISE, apply.Num(r.Start), apply.Num(r.Len()), apply.Num(bit))
		}
	}
}

// Seal makes memory that has been filled what it was: names, advice, locks, guards; then the addresses that the kernel keeps, and
// the program. It comes after all that forks with the memory.
func Seal(t *apply.Task) error {
	s := t.Space
	if s == nil {
		return nil
	}
	for i := range s.VMAs {
		v := &s.VMAs[i]
		if v.Kind.OfKernel() {
			continue
		}
		if v.Name != "" {
			name(t, v)
		}
		advise(t, v, v.Range, ^uint64(before))
		if v.FirstProt() != v.Prot&protectionWords {
			t.Batch.DoAt("protection of the memory at", v.Start, unix.SYS_MPROTECT, apply.Num(v.Start), apply.Num(v.Len()), apply.Num(v.Prot))
		}
	}
	for _, g := range s.Guards {
		t.Batch.DoAt("guard pages at", g.Start, unix.SYS_MADVISE, apply.Num(g.Start), apply.Num(g.Len()), apply.Num(madvGuard))
	}
	lock(t, s)
	if s.MergeAny {
		t.Batch.Do("PR_SET_MEMORY_MERGE", unix.SYS_PRCTL, apply.Num(unix.PR_SET_MEMORY_MERGE), apply.Num(1))
	}
	exe, err := t.Tree.Files.Number(s.Exe)
	if err != nil {
		return fmt.Errorf("%s: its program: %w", t.Where(), err)
	}
	auxv := apply.Num(0)
	if len(s.Auxv) > 0 {
		auxv = apply.Words(s.Auxv...)
	}
	// struct prctl_mm_map has the address of the vector in it, so the two are one argument each, and the address is filled in.
	t.Batch.DoWithPointer("addresses of the program (PR_SET_MM_MAP)", auxv, 8*11,
		unix.SYS_PRCTL, apply.Num(unix.PR_SET_MM), apply.Num(prSetMMMap),
		apply.Words(s.StartCode, s.EndCode, s.StartData, s.EndData, s.StartBrk, s.Brk, s.StartStack, s.ArgStart, s.ArgEnd,
			s.EnvStart, s.EnvEnd, 0, uint64(8*len(s.Auxv))|uint64(exe)<<32), apply.Num(mmMapSize), apply.Num(0))
	disable := 0 // also where it is so: ours was inherited
	if s.THPDisabled {
		disable = 1
	}
	t.Batch.Do("PR_SET_THP_DISABLE", unix.SYS_PRCTL, apply.Num(unix.PR_SET_THP_DISABLE), apply.Num(disable))
	return nil
}

// name gives anonymous memory its name, on kernels that know of such.
func name(t *apply.Task, v *snapshot.VMA) {
	t.Batch.Try(fmt.Sprintf("name of the memory at %#x", v.Start), func(_ uint64, err error) error {
		if errors.Is(err, unix.EINVAL) {
			t.Tree.Note("%s: the memory at %#x is not called %q: the kernel has no names for memory (CONFIG_ANON_VMA_NAME)", t.Where(), v.Start, v.Name)
			return nil
		}
		return err
	}, unix.SYS_PRCTL, apply.Num(prSetVMA), apply.Num(prSetVMAName), apply.Num(v.Start), apply.Num(v.Len()), apply.Text(v.Name))
}

// lock locks what is locked, when it is guarded, as locked memory cannot be, and what comes. mlock fails where pages cannot be had, as
// those that nobody may access; so the lock itself, which must succeed, is taken first without asking for pages.
func lock(t *apply.Task, s *snapshot.Space) {
	for i := range s.VMAs {
		v := &s.VMAs[i]
		if v.Kind.OfKernel() || v.Flags&unix.MAP_LOCKED == 0 {
			continue
		}
		t.Batch.DoAt("mlock of the memory at", v.Start, unix.SYS_MLOCK2, apply.Num(v.Start), apply.Num(v.Len()), apply.Num(unix.MLOCK_ONFAULT))
		if !v.LockOnFault {
			t.Batch.Try("mlock", func(uint64, error) error { return nil }, unix.SYS_MLOCK, apply.Num(v.Start), apply.Num(v.Len()))
		}
	}
	switch s.LockFuture {
	case snapshot.LockAll:
		t.Batch.Do("mlockall", unix.SYS_MLOCKALL, apply.Num(unix.MCL_FUTURE))
	case snapshot.LockOnFault:
		t.Batch.Do("mlockall", unix.SYS_MLOCKALL, apply.Num(unix.MCL_FUTURE|unix.MCL_ONFAULT))
	}
}

// SyscallAt finds an instruction that makes a system call in memory that the process has got: in its vDSO, or else in its program.
func SyscallAt(p *stub.Process, s *snapshot.Space) (uint64, error) {
	for _, kernel := range []bool{true, false} {
		for i := range s.VMAs {
			v := &s.VMAs[i]
			if kernel != (v.Kind == snapshot.VDSO) || v.Prot&unix.PROT_EXEC == 0 || v.Kind == snapshot.VSyscall {
				continue
			}
			if at, ok := findSyscall(p, v.Range); ok {
				return at, nil
			}
		}
	}
	return 0, fmt.Errorf("process %d: there is no system call instruction in its memory", p.PID)
}

func findSyscall(p *stub.Process, r snapshot.Range) (uint64, bool) {
	var buf [2 * areaPage]byte // as large as a vDSO
	for at := r.Start; at < r.End; at += uint64(len(buf)) {
		b := buf[:min(uint64(len(buf)), r.End-at)]
		if err := p.Read(at, b); err != nil {
			return 0, false // the rest of a mapping may be past the end of its file
		}
		if i := stub.FindSyscall(b); i >= 0 {
			return at + uint64(i), true
		}
	}
	return 0, false
}
