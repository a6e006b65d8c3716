package mm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
)

// Another kernel's vDSO
//
// The kernel maps code of its own into each process, which works with data that it keeps in the mapping before it. Programs
// have the addresses of its functions by heart. Where the kernel that restores has other code, the process gets that at a free
// place, and keeps the old code where it was, as memory of its own: with a jump to the new function at the beginning of each
// old one. The old data is memory of zeros, with which all kernels' code makes a system call instead of working by itself; so
// whoever was in the middle of it, or calls what the new kernel does not have, gets what they want. The coarse clocks are the
// exception: they need no counter, and the one call that was in the middle of reading one may find 0. A thread that stood where
// the jump is written goes on in a copy of the old code, so that no later call of anybody's is an old one.

// A VDSO is the code that the kernel maps into processes, and the length of its data before it.
type VDSO struct {
	Data uint64
	Code []byte
}

// Len is the length of both.
func (v *VDSO) Len() uint64 { return v.Data + uint64(len(v.Code)) }

// jumpSize is the size of a jump as jump writes it.
const jumpSize = 12

// jump returns the code of a jump to anywhere: mov $to, %rax; jmp *%rax. Functions have no use for rax when they are called.
func jump(to uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{0x48, 0xb8}, to)
	return append(b, 0xff, 0xe0)
}

// A Patch is what is written over code.
type Patch struct {
	Addr uint64
	Code []byte
}

// Same reports whether a space can have the kernel's own vDSO where it had one: its own is the same, or has the functions at the
// same places and none of the threads, whose instruction pointers are given, is in it. A space without one can; so can one
// whose code is not known.
func (v *VDSO) Same(s *snapshot.Space, code []byte, pointers []uint64) bool {
	data, text := kernelMappings(s)
	if text == nil || code == nil {
		return true
	}
	if text.Len() != uint64(len(v.Code)) || data == nil && v.Data > 0 || data != nil && (data.Len() != v.Data || data.End != text.Start) {
		return false
	}
	// Behind the code there is room that others may have used.
	end := min(codeEnd(v.Code), uint64(len(code)))
	if bytes.Equal(code[:end], v.Code[:end]) {
		return true
	}
	old, err := symbols(code)
	if err != nil {
		return false
	}
	own, err := symbols(v.Code)
	if err != nil || !maps.Equal(old, own) {
		return false
	}
	return !slices.ContainsFunc(pointers, func(ip uint64) bool { return ip >= text.Start && ip < text.End })
}

// A Moved is what becomes of a space whose vDSO is another kernel's.
type Moved struct {
	Patches []Patch
	// Pointers are the instruction pointers that change, with what they change to.
	Pointers map[uint64]uint64
}

// Room is how much room Move may take for a space.
func (v *VDSO) Room(s *snapshot.Space) uint64 {
	room := v.Len()
	if _, text := kernelMappings(s); text != nil {
		room += oldRange(s).Len()
	}
	return room
}

// oldRange is the vDSO that a space had: the code, with the data where it is before it.
func oldRange(s *snapshot.Space) snapshot.Range {
	data, text := kernelMappings(s)
	if data != nil && data.End == text.Start {
		return snapshot.Range{Start: data.Start, End: text.End}
	}
	return text.Range
}

// Move makes the vDSO of a space memory of its own, and gives it the kernel's at a free place.
func (v *VDSO) Move(s *snapshot.Space, code []byte, pointers []uint64, at uint64) (*Moved, error) {
	data, text := kernelMappings(s)
	old, err := symbols(code)
	if err != nil {
		return nil, fmt.Errorf("the vDSO at %#x: %w", text.Start, err)
	}
	own, err := symbols(v.Code)
	if err != nil {
		return nil, fmt.Errorf("this kernel's vDSO: %w", err)
	}
	m := &Moved{Pointers: make(map[uint64]uint64)}
	was := oldRange(s)
	spare := at + v.Len() // of the old code and its data, for threads that stood where a jump is written
	done := make(map[uint64]bool)
	for _, name := range slices.Sorted(maps.Keys(old)) {
		from, to := old[name], own[name]
		if to == 0 || done[from] || from+jumpSize > uint64(len(code)) {
			continue
		}
		done[from] = true
		m.Patches = append(m.Patches, Patch{Addr: text.Start + from, Code: jump(at + v.Data + to)})
		for _, ip := range pointers {
			if ip > text.Start+from && ip < text.Start+from+jumpSize {
				m.Pointers[ip] = spare + ip - was.Start
			}
		}
	}
	text.Kind, text.Accounted = snapshot.AnonPrivate, true
	if data != nil {
		data.Kind, data.Accounted, data.Advice = snapshot.AnonPrivate, false, 0
	}
	mapping := func(kind snapshot.VMAKind, start, end uint64, prot uint32) snapshot.VMA {
		return snapshot.VMA{Range: snapshot.Range{Start: start, End: end}, Kind: kind, Prot: prot, Flags: mapPrivate | mapAnonymous}
	}
	var fresh []snapshot.VMA
	if v.Data > 0 {
		fresh = append(fresh, mapping(snapshot.VVar, at, at+v.Data, unix.PROT_READ))
	}
	fresh = append(fresh, mapping(snapshot.VDSO, at+v.Data, at+v.Len(), unix.PROT_READ|unix.PROT_EXEC))
	if len(m.Pointers) > 0 {
		copied := spare + text.Start - was.Start
		fresh = append(fresh, mapping(snapshot.AnonPrivate, spare, spare+was.Len(), unix.PROT_READ|unix.PROT_EXEC))
		m.Patches = append(m.Patches, Patch{Addr: copied, Code: code})
	}
	i, _ := slices.BinarySearchFunc(s.VMAs, at, func(v snapshot.VMA, at uint64) int {
		if v.Start < at {
			return -1
		}
		return 1
	})
	s.VMAs = slices.Insert(s.VMAs, i, fresh...)
	return m, nil
}

// kernelMappings returns the mappings of the kernel's data and code, nil for none.
func kernelMappings(s *snapshot.Space) (data, text *snapshot.VMA) {
	for i := range s.VMAs {
		switch v := &s.VMAs[i]; v.Kind {
		case snapshot.VVar:
			data = v
		case snapshot.VDSO:
			text = v
		}
	}
	return data, text
}

// Parts of ELF files of 64 bits, little-endian.
const (
	elfHeader   = 64
	elfPhOff    = 32
	elfPhNum    = 56
	elfPhSize   = 56
	elfSymSize  = 24
	ptLoad      = 1
	ptDynamic   = 2
	dtHash      = 4
	dtStrtab    = 5
	dtSymtab    = 6
	maxVDSOSyms = 256
)

// segment returns the first segment of a type: where it is in the code, and its address.
func segment(code []byte, typ uint32) (offset, addr, size uint64, ok bool) {
	le := binary.LittleEndian
	if len(code) < elfHeader || !bytes.HasPrefix(code, []byte("\x7fELF\x02\x01")) {
		return 0, 0, 0, false
	}
	at := le.Uint64(code[elfPhOff:])
	for range le.Uint16(code[elfPhNum:]) {
		if at > uint64(len(code)) || uint64(len(code))-at < elfPhSize {
			return 0, 0, 0, false
		}
		h := code[at:]
		if le.Uint32(h) == typ {
			return le.Uint64(h[8:]), le.Uint64(h[16:]), le.Uint64(h[32:]), true
		}
		at += elfPhSize
	}
	return 0, 0, 0, false
}

// codeEnd returns where the loaded part ends.
func codeEnd(code []byte) uint64 {
	if _, _, size, ok := segment(code, ptLoad); ok {
		return min(size, uint64(len(code)))
	}
	return uint64(len(code))
}

// symbols returns the functions of a vDSO with their offsets in the code. It is as untrusted as any image.
func symbols(code []byte) (map[string]uint64, error) {
	le := binary.LittleEndian
	bad := fmt.Errorf("it is no vDSO")
	_, base, _, ok := segment(code, ptLoad)
	offset, _, size, dyn := segment(code, ptDynamic)
	if !ok || !dyn {
		return nil, bad
	}
	// part returns what is at an address.
	part := func(addr, length uint64) []byte {
		if at := addr - base; at <= uint64(len(code)) && uint64(len(code))-at >= length {
			return code[at:]
		}
		return nil
	}
	table := make(map[uint64]uint64)
	for at := uint64(0); at+16 <= size && offset+at+16 <= uint64(len(code)) && offset+at+16 > offset; at += 16 {
		tag := le.Uint64(code[offset+at:])
		if tag == 0 {
			break
		}
		table[tag] = le.Uint64(code[offset+at+8:])
	}
	hash, texts := part(table[dtHash], 8), part(table[dtStrtab], 1)
	if hash == nil || texts == nil || table[dtHash] == 0 {
		return nil, bad
	}
	n := uint64(le.Uint32(hash[4:])) // chains: one for each symbol
	syms := part(table[dtSymtab], n*elfSymSize)
	if n > maxVDSOSyms || syms == nil {
		return nil, bad
	}
	found := make(map[string]uint64, n)
	for i := range n {
		s := syms[i*elfSymSize:]
		name, section, value := uint64(le.Uint32(s)), le.Uint16(s[6:]), le.Uint64(s[8:])
		const function, undefined, absolute = 2, 0, 0xfff1
		if s[4]&0xf != function || section == undefined || section == absolute || name >= uint64(len(texts)) {
			continue
		}
		end := bytes.IndexByte(texts[name:], 0)
		if at := value - base; end > 0 && at > 0 && at < uint64(len(code)) {
			found[string(texts[name:name+uint64(end)])] = at
		}
	}
	if len(found) == 0 {
		return nil, bad
	}
	return found, nil
}
