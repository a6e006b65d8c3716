package proc

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// A Smap is an entry of smaps: a mapping, what it occupies and its flags. Sizes are in bytes; the kernel counts in KiB.
type Smap struct {
	Mapping

	Size, KernelPageSize, MMUPageSize                    uint64
	Rss, Pss, PssDirty                                   uint64
	SharedClean, SharedDirty, PrivateClean, PrivateDirty uint64
	Referenced, Anonymous, KSM, LazyFree                 uint64
	AnonHugePages, ShmemPmdMapped, FilePmdMapped         uint64
	SharedHugetlb, PrivateHugetlb, Swap, SwapPss, Locked uint64
	THPEligible                                          bool
	ProtectionKey                                        uint32 // 0 where the line is missing: no CPU support
	Flags                                                VMFlags
	UnknownFlags                                         []string // codes that VMFlags has not; "??" is a flag that the kernel has no code for
	Extra                                                []Field  // lines that this type has no field for
}

// VMFlags is the line VmFlags of smaps. It says more than the permissions: what mmap, madvise and mlock were asked for.
type VMFlags uint64

// The flags, with their codes in smaps.
const (
	VMRead        VMFlags = 1 << iota // rd
	VMWrite                           // wr
	VMExec                            // ex
	VMShared                          // sh
	VMMayRead                         // mr: mprotect may add reading
	VMMayWrite                        // mw
	VMMayExec                         // me
	VMMayShare                        // ms: MAP_SHARED, even where writing was not allowed
	VMGrowsDown                       // gd: MAP_GROWSDOWN
	VMPFNMap                          // pf: page frames without struct page
	VMLocked                          // lo: mlock, MAP_LOCKED
	VMIO                              // io: memory of a device
	VMSeqRead                         // sr: MADV_SEQUENTIAL
	VMRandRead                        // rr: MADV_RANDOM
	VMDontCopy                        // dc: MADV_DONTFORK
	VMDontExpand                      // de: mremap may not make it bigger
	VMAccount                         // ac: counted against the commit limit
	VMNoReserve                       // nr: MAP_NORESERVE
	VMHugeTLB                         // ht: MAP_HUGETLB
	VMSync                            // sf: MAP_SYNC
	VMArch1                           // ar
	VMWipeOnFork                      // wf: MADV_WIPEONFORK
	VMDontDump                        // dd: MADV_DONTDUMP
	VMSoftDirty                       // sd
	VMMixedMap                        // mm: page frames with and without struct page
	VMHugePage                        // hg: MADV_HUGEPAGE
	VMNoHugePage                      // nh: MADV_NOHUGEPAGE
	VMMergeable                       // mg: MADV_MERGEABLE
	VMUffdMissing                     // um: userfaultfd, missing pages
	VMUffdWP                          // uw: userfaultfd, write protection
	VMUffdMinor                       // ui: userfaultfd, minor faults (5.13)
	VMShadowStack                     // ss: shadow stack (6.6)
	VMSealed                          // sl: mseal
	VMDroppable                       // dp: MAP_DROPPABLE (6.11)
	VMMaybeGuard                      // gu: may have pages with MADV_GUARD_INSTALL
	VMBTI                             // bt: branch targets, arm64
	VMMTE                             // mt: memory tags, arm64
	VMNonLinear                       // nl: remap_file_pages, of old kernels
	VMDenyWrite                       // dw: of old kernels
	VMLockOnFault                     // lf: MLOCK_ONFAULT, with lo
)

const vmCodes = "rdwrexshmrmwmemsgdpfloiosrrrdcdeacnrhtsfarwfddsdmmhgnhmgumuwuisssldpgubtmtnldwlf"

// vmFlag returns the flag of a code.
func vmFlag(code []byte) (VMFlags, bool) {
	if len(code) != 2 {
		return 0, false
	}
	for i := 0; i < len(vmCodes); i += 2 {
		if vmCodes[i] == code[0] && vmCodes[i+1] == code[1] {
			return 1 << (i / 2), true
		}
	}
	return 0, false
}

// Has reports whether all of g is in f.
func (f VMFlags) Has(g VMFlags) bool { return f&g == g }

// String returns the codes, as in smaps.
func (f VMFlags) String() string {
	var codes []string
	for i := 0; i < len(vmCodes); i += 2 {
		if f&(1<<(i/2)) != 0 {
			codes = append(codes, vmCodes[i:i+2])
		}
	}
	if rest := f >> (len(vmCodes) / 2); rest != 0 {
		codes = append(codes, fmt.Sprintf("%#x", uint64(rest)<<(len(vmCodes)/2)))
	}
	return strings.Join(codes, " ")
}

// A SmapsReader reads smaps, one mapping at a time.
type SmapsReader struct {
	l       *lines
	more    bool // the present line begins a mapping that has not been returned
	started bool
	end     uint64 // of the mapping before
	brief   bool   // what mappings occupy is left out
}

// NewSmapsReader reads smaps from r.
func NewSmapsReader(r io.Reader) *SmapsReader { return &SmapsReader{l: newLines(r)} }

// Next reads the next mapping into m. At the end it returns io.EOF itself.
func (r *SmapsReader) Next(m *Smap) error {
	if !r.started {
		r.started = true
		r.more = r.l.next()
	}
	if !r.more {
		if err := r.l.failed(); err != nil {
			return err
		}
		return io.EOF
	}
	*m = Smap{Mapping: Mapping{Path: m.Path}}
	if err := m.parse(r.l); err != nil {
		return err
	}
	if m.Start < r.end {
		return r.l.bad("mapping begins before the end of the one before")
	}
	r.end = m.End
	head := r.l.n
	flags := false
	for {
		r.more = r.l.next()
		// Keys begin with a capital letter, addresses with a digit or a small letter.
		if !r.more || len(r.l.text) == 0 || r.l.text[0] < 'A' || r.l.text[0] > 'Z' {
			break
		}
		if r.brief && occupied(r.l.text) {
			continue
		}
		key, value, ok := cutKey(r.l.text)
		if !ok {
			return r.l.bad("no colon")
		}
		if string(key) == "VmFlags" {
			flags = true
			m.setFlags(value)
			continue
		}
		if err := m.set(r.l, key, value); err != nil {
			return err
		}
	}
	if err := r.l.failed(); err != nil {
		return err
	}
	if !flags {
		return &SyntaxError{Line: head, Text: fmt.Sprintf("%x-%x", m.Start, m.End), What: "mapping without VmFlags"}
	}
	return nil
}

// occupied reports whether a line says how much of something there is.
func occupied(line []byte) bool { return bytes.HasSuffix(line, []byte(" kB")) }

func (m *Smap) setFlags(value []byte) {
	for len(value) > 0 {
		var code []byte
		code, value = word(value)
		if f, ok := vmFlag(code); ok {
			m.Flags |= f
		} else {
			m.UnknownFlags = append(m.UnknownFlags, string(code))
		}
	}
}

func (m *Smap) set(l *lines, key, value []byte) error {
	switch string(key) {
	case "THPeligible":
		var n int
		if !number(value, &n) {
			return l.bad("no number")
		}
		m.THPEligible = n != 0
		return nil
	case "ProtectionKey":
		if !number(value, &m.ProtectionKey) {
			return l.bad("no number")
		}
		return nil
	}
	field := m.size(key)
	if field == nil {
		m.Extra = append(m.Extra, Field{string(key), string(value)})
		return nil
	}
	if !kilobytes(value, field) {
		return l.bad("no number of kB")
	}
	return nil
}

// kilobytes parses "12 kB" to bytes.
func kilobytes(value []byte, v *uint64) bool {
	n, ok := bytes.CutSuffix(value, []byte(" kB"))
	if !ok || !number(n, v) || *v > 1<<53 {
		return false
	}
	*v <<= 10
	return true
}

// size returns the field of a line that is a size, or nil.
func (m *Smap) size(key []byte) *uint64 {
	switch string(key) {
	case "Size":
		return &m.Size
	case "KernelPageSize":
		return &m.KernelPageSize
	case "MMUPageSize":
		return &m.MMUPageSize
	case "Rss":
		return &m.Rss
	case "Pss":
		return &m.Pss
	case "Pss_Dirty":
		return &m.PssDirty
	case "Shared_Clean":
		return &m.SharedClean
	case "Shared_Dirty":
		return &m.SharedDirty
	case "Private_Clean":
		return &m.PrivateClean
	case "Private_Dirty":
		return &m.PrivateDirty
	case "Referenced":
		return &m.Referenced
	case "Anonymous":
		return &m.Anonymous
	case "KSM":
		return &m.KSM
	case "LazyFree":
		return &m.LazyFree
	case "AnonHugePages":
		return &m.AnonHugePages
	case "ShmemPmdMapped":
		return &m.ShmemPmdMapped
	case "FilePmdMapped":
		return &m.FilePmdMapped
	case "Shared_Hugetlb":
		return &m.SharedHugetlb
	case "Private_Hugetlb":
		return &m.PrivateHugetlb
	case "Swap":
		return &m.Swap
	case "SwapPss":
		return &m.SwapPss
	case "Locked":
		return &m.Locked
	}
	return nil
}
