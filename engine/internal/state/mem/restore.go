//go:build amd64

package mem

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/proc"
)

const pageSize = 4096

// Decode reads an address space from its entry. file returns a file by its number in files.img.
func Decode(e *entry.MM, file func(uint32) (snapshot.File, error), s *snapshot.MM) error {
	s.StartCode, s.EndCode, s.StartData, s.EndData = e.MMStartCode, e.MMEndCode, e.MMStartData, e.MMEndData
	s.StartStack, s.StartBrk, s.Brk = e.MMStartStack, e.MMStartBrk, e.MMBrk
	s.ArgStart, s.ArgEnd, s.EnvStart, s.EnvEnd = e.MMArgStart, e.MMArgEnd, e.MMEnvStart, e.MMEnvEnd
	s.Auxv = e.MMSavedAuxv
	s.Dumpable = 1
	if e.Dumpable != nil {
		s.Dumpable = int(*e.Dumpable)
	}
	s.THPDisabled = e.THPDisabled != nil && *e.THPDisabled
	if len(e.AIOs) > 0 {
		return fmt.Errorf("%w: asynchronous I/O (io_setup)", errors.ErrUnsupported)
	}
	for i := range e.VMAs {
		v, err := decodeVMA(&e.VMAs[i], file)
		if err != nil {
			return fmt.Errorf("mapping %x-%x: %w", e.VMAs[i].Start, e.VMAs[i].End, err)
		}
		if n := len(s.VMAs); n > 0 && s.VMAs[n-1].End > v.Start || v.Start >= v.End || (v.Start|v.End)%pageSize != 0 {
			return fmt.Errorf("mapping %x-%x: not in order, or not of whole pages", v.Start, v.End)
		}
		s.VMAs = append(s.VMAs, v)
	}
	return nil
}

func decodeVMA(e *entry.VMA, file func(uint32) (snapshot.File, error)) (v snapshot.VMA, err error) {
	v = snapshot.VMA{
		Start: e.Start, End: e.End, Prot: e.Prot, Offset: e.PgOff, Shared: e.Flags&unix.MAP_TYPE == unix.MAP_SHARED,
		GrowsDown: e.Flags&unix.MAP_GROWSDOWN != 0, NoReserve: e.Flags&unix.MAP_NORESERVE != 0, Locked: e.Flags&unix.MAP_LOCKED != 0,
	}
	if e.Madv != nil {
		v.Advice = *e.Madv
	}
	switch st := e.Status; {
	case st&entry.VMAVsyscall != 0:
		v.Kind = snapshot.VMAVsyscall
	case st&entry.VMAVDSO != 0:
		v.Kind = snapshot.VMAVDSO
	case st&entry.VMAVvar != 0:
		v.Kind = snapshot.VMAVvar
	case st&(entry.VMAFilePrivate|entry.VMAFileShared) != 0:
		var f snapshot.File
		if f, err = file(uint32(e.ShmID)); err != nil {
			return v, err
		}
		// How it is opened: the mapping says, or what it may do.
		f.Pos = 0
		f.Flags = unix.O_RDONLY
		if e.FDFlags != nil {
			f.Flags = *e.FDFlags
		} else if v.Shared && v.Prot&unix.PROT_WRITE != 0 {
			f.Flags = unix.O_RDWR
		}
		v.Kind, v.File = snapshot.VMAFile, &f
	case st&entry.VMAAnonPrivate != 0 && st&(entry.VMAShadowStack|entry.VMAGuard|entry.VMAAIORing|entry.VMASocket|entry.VMASysVIPC) == 0:
		if st&entry.VMAHeap != 0 {
			v.Kind = snapshot.VMAHeap
		}
	default:
		return v, fmt.Errorf("%w: status %#x", errors.ErrUnsupported, st)
	}
	return v, nil
}

// Apply makes the address space of a process that has only the scratch area and what it was copied with. with opens a
// file and gives it to the process. Memory that is to be filled can be written afterwards, whatever its protection;
// Protect ends that.
func Apply(p *remote.Process, dir proc.Dir, s *snapshot.MM, with func(*snapshot.File, func(fd uint64) error) error) error {
	start, end := p.Scratch()
	const top = 0x7ffffffff000
	a := p.NewArena()
	a.Call(unix.SYS_MUNMAP, 0, start)
	a.Call(unix.SYS_MUNMAP, end, top-end)
	if err := a.Run(p.Threads[0]); err != nil {
		return err
	}
	if err := applyVDSO(p, dir, s); err != nil {
		return err
	}
	for i := range s.VMAs {
		if err := applyVMA(p, &s.VMAs[i], with); err != nil {
			return fmt.Errorf("mapping %x-%x: %w", s.VMAs[i].Start, s.VMAs[i].End, err)
		}
	}
	return nil
}

// applyVDSO puts the vDSO and its data where they were, which works for the kernel that they came from.
func applyVDSO(p *remote.Process, dir proc.Dir, s *snapshot.MM) error {
	var want []snapshot.VMA
	for _, v := range s.VMAs {
		if v.Kind == snapshot.VMAVDSO || v.Kind == snapshot.VMAVvar {
			want = append(want, v)
		}
	}
	if len(want) == 0 {
		return nil
	}
	const archMapVDSO64 = 0x2003
	a := p.NewArena()
	a.Call(unix.SYS_ARCH_PRCTL, archMapVDSO64, want[0].Start)
	if err := a.Run(p.Threads[0]); err != nil {
		return err
	}
	maps, err := dir.Maps()
	if err != nil {
		return err
	}
	var got snapshot.MM
	for _, m := range maps {
		switch m.Path {
		case "[vdso]":
			got.VMAs = append(got.VMAs, snapshot.VMA{Start: m.Start, End: m.End, Kind: snapshot.VMAVDSO})
		case "[vvar]", "[vvar_vclock]":
			if n := len(got.VMAs); n > 0 && got.VMAs[n-1].Kind == snapshot.VMAVvar && got.VMAs[n-1].End == m.Start {
				got.VMAs[n-1].End = m.End
				continue
			}
			got.VMAs = append(got.VMAs, snapshot.VMA{Start: m.Start, End: m.End, Kind: snapshot.VMAVvar})
		}
	}
	same := len(got.VMAs) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = got.VMAs[i].Start == want[i].Start && got.VMAs[i].End == want[i].End && got.VMAs[i].Kind == want[i].Kind
	}
	if !same {
		return fmt.Errorf("%w: the vDSO is of another kernel", errors.ErrUnsupported)
	}
	return nil
}

func applyVMA(p *remote.Process, v *snapshot.VMA, with func(*snapshot.File, func(fd uint64) error) error) error {
	flags := uint64(unix.MAP_FIXED_NOREPLACE | unix.MAP_PRIVATE)
	prot := uint64(v.Prot)
	if v.Shared {
		flags = unix.MAP_FIXED_NOREPLACE | unix.MAP_SHARED
	} else {
		prot |= unix.PROT_READ | unix.PROT_WRITE
	}
	if v.GrowsDown {
		flags |= unix.MAP_GROWSDOWN
	}
	if v.NoReserve {
		flags |= unix.MAP_NORESERVE
	}
	if v.Locked {
		flags |= unix.MAP_LOCKED
	}
	mmap := func(fd, flags, offset uint64) error {
		calls := []remote.Call{remote.NewCall(unix.SYS_MMAP, v.Start, v.End-v.Start, prot, flags, fd, offset)}
		for bit := range 64 {
			if v.Advice>>bit&1 != 0 {
				calls = append(calls, remote.NewCall(unix.SYS_MADVISE, v.Start, v.End-v.Start, uint64(bit)))
			}
		}
		if err := p.Run(calls); err != nil {
			return err
		}
		if err := calls[0].Err(); err != nil {
			return fmt.Errorf("mmap: %w", err)
		}
		return remote.Must(calls[1:])
	}
	switch v.Kind {
	case snapshot.VMAVDSO, snapshot.VMAVvar, snapshot.VMAVsyscall:
		return nil
	case snapshot.VMAFile:
		return with(v.File, func(fd uint64) error { return mmap(fd, flags, v.Offset) })
	default:
		return mmap(^uint64(0), flags|unix.MAP_ANONYMOUS, 0)
	}
}

// Fill puts the pages of the images in place.
func Fill(p *remote.Process, chain *image.Chain, s *snapshot.MM) error {
	buf := make([]byte, 1<<20)
	for {
		x, err := chain.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		end := x.Addr + x.Pages*pageSize
		if isVDSO(s, x.Addr) {
			continue
		}
		f := chain.PagesFile(x.Level)
		if x.Offset < 0 {
			return fmt.Errorf("pages %x-%x: %w: they are lazy, in no file", x.Addr, end, errors.ErrUnsupported)
		}
		for at := x.Addr; at < end; at += uint64(len(buf)) {
			b := buf[:min(uint64(len(buf)), end-at)]
			if _, err := f.ReadAt(b, x.Offset+int64(at-x.Addr)); err != nil {
				return fmt.Errorf("pages %x-%x: %w", x.Addr, end, err)
			}
			if err := p.Write(at, b); err != nil {
				return err
			}
		}
	}
}

func isVDSO(s *snapshot.MM, addr uint64) bool {
	for i := range s.VMAs {
		if v := &s.VMAs[i]; v.Kind == snapshot.VMAVDSO && addr >= v.Start && addr < v.End {
			return true
		}
	}
	return false
}

// Protect gives the mappings the protection that they had, and tells the kernel the bounds of the address space and the
// program, whose number in the process is exe.
func Protect(p *remote.Process, s *snapshot.MM, exe uint64) error {
	a := p.NewArena()
	for i := range s.VMAs {
		v := &s.VMAs[i]
		private := !v.Shared && v.Kind != snapshot.VMAVDSO && v.Kind != snapshot.VMAVvar && v.Kind != snapshot.VMAVsyscall
		if private && v.Prot&(unix.PROT_READ|unix.PROT_WRITE) != unix.PROT_READ|unix.PROT_WRITE {
			a.Call(unix.SYS_MPROTECT, v.Start, v.End-v.Start, uint64(v.Prot))
		}
	}
	auxv := append(append([]uint64{}, s.Auxv...), 0, 0) // AT_NULL
	at := a.Words(auxv...)
	// struct prctl_mm_map; its last word is the length of auxv and the program's descriptor.
	words := a.Words(s.StartCode, s.EndCode, s.StartData, s.EndData, s.StartBrk, s.Brk, s.StartStack,
		s.ArgStart, s.ArgEnd, s.EnvStart, s.EnvEnd, at, uint64(len(auxv)*8)|exe<<32)
	const mmMapSize = 13 * 8
	a.Call(unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP, words, mmMapSize, 0)
	if s.THPDisabled {
		a.Call(unix.SYS_PRCTL, unix.PR_SET_THP_DISABLE, 1)
	}
	a.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, uint64(s.Dumpable&1))
	return a.Run(p.Threads[0])
}
