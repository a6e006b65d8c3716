package snapshot

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// Arch is an architecture.
type Arch uint8

// The architectures.
const (
	AMD64 Arch = iota + 1
	ARM64
)

// String returns Go's name.
func (a Arch) String() string {
	switch a {
	case AMD64:
		return "amd64"
	case ARM64:
		return "arm64"
	}
	return fmt.Sprintf("architecture %d", uint8(a))
}

// UserEnd returns the end of the addresses that a process can map: TASK_SIZE with 47 bits on amd64, with 48 bits on arm64.
// The wider spaces of newer machines are only used by processes that ask for them by address.
func (a Arch) UserEnd() uint64 {
	switch a {
	case AMD64:
		return 1<<47 - 4096
	case ARM64:
		return 1 << 48
	}
	return 0
}

// VSyscall returns the page that amd64 has above all user addresses; other architectures have none.
func (a Arch) VSyscall() Range {
	if a == AMD64 {
		return Range{0xffffffffff600000, 0xffffffffff601000}
	}
	return Range{}
}

// Registers are those of a thread: *AMD64Registers or *ARM64Registers.
type Registers interface {
	Arch() Arch
}

// AMD64Registers are the registers of an amd64 thread as they are when it runs on: a system call that was interrupted is
// already set up to be made again, or to return EINTR.
type AMD64Registers struct {
	R15, R14, R13, R12, BP, BX, R11, R10, R9, R8, AX, CX, DX, SI, DI, OrigAX uint64
	IP, CS, Flags, SP, SS, FSBase, GSBase, DS, ES, FS, GS                    uint64

	Compat bool // runs 32-bit code
	FPU    XState
	TLS    []TLSDescriptor // the three slots of the GDT that set_thread_area(2) fills
}

// Arch returns AMD64.
func (*AMD64Registers) Arch() Arch { return AMD64 }

// TLSDescriptor is a struct user_desc.
type TLSDescriptor struct {
	Entry, Base, Limit uint32

	Seg32Bit, ContentsHigh, ContentsLow, ReadExecOnly, LimitInPages, NotPresent, Usable bool
}

// Components of the extended state that have names here. The numbers are the processor's: bits of XCR0 and of XSTATE_BV.
const (
	XFP        = 0  // x87
	XSSE       = 1  // XMM registers and MXCSR
	XAVX       = 2  // the high halves of 16 YMM registers
	XBndRegs   = 3  // MPX
	XBndCSR    = 4  // MPX
	XOpmask    = 5  // AVX-512: k0 to k7
	XZMMHi256  = 6  // AVX-512: the high halves of ZMM0 to ZMM15
	XHi16ZMM   = 7  // AVX-512: ZMM16 to ZMM31
	XPKRU      = 9  // protection keys
	XCETUser   = 11 // shadow stack
	xNumComps  = 64
	xLegacyLen = 512 // the FXSAVE area, before the header of XSAVE
	xHeaderLen = 64
)

// XState is the floating-point and vector state of an amd64 thread, as components. Where each is in the buffer that
// PTRACE_GETREGSET(NT_X86_XSTATE) gives differs by processor: see XLayout.
type XState struct {
	ControlWord, StatusWord, TagWord, Opcode uint16 // TagWord is the abridged one of FXSAVE
	LastIP, LastDP                           uint64
	MXCSR, MXCSRMask                         uint32
	ST                                       [128]byte // eight registers of sixteen bytes, ten of them used
	XMM                                      [256]byte

	// Extended tells whether the processor has XSAVE; Used and Components are empty where not.
	Extended   bool
	Used       uint64 // XSTATE_BV: bits of the components that were not in their initial state
	Components []XComponent
}

// An XComponent is one of the components after the legacy area.
type XComponent struct {
	Number int // 2 and up, ascending
	Data   []byte
}

// Component returns the data of a component, nil where there is none.
func (x *XState) Component(number int) []byte {
	for _, c := range x.Components {
		if c.Number == number {
			return c.Data
		}
	}
	return nil
}

// XLayout says where the components are in an XSAVE buffer of the standard format: what CPUID leaf 0xd says to the process
// that is looked at.
type XLayout struct {
	Size        int // of the whole buffer
	Offset, Len [xNumComps]uint32
	MXCSRMask   uint32 // of the processor; bits of MXCSR that may be set
	SupportedBV uint64 // components that the kernel has enabled for user mode
	Legacy      bool   // the buffer is an FXSAVE area: no XSAVE
}

// Parse reads a buffer. The result has the components that have names here and that the processor has, in use or not, as
// CRIU writes them; of the others those that are in use.
func (l *XLayout) Parse(buf []byte) (XState, error) {
	var x XState
	if len(buf) < xLegacyLen {
		return x, fmt.Errorf("floating-point state of %d bytes, at least %d were expected", len(buf), xLegacyLen)
	}
	le := binary.LittleEndian
	x.ControlWord, x.StatusWord, x.TagWord, x.Opcode = le.Uint16(buf), le.Uint16(buf[2:]), le.Uint16(buf[4:]), le.Uint16(buf[6:])
	x.LastIP, x.LastDP = le.Uint64(buf[8:]), le.Uint64(buf[16:])
	x.MXCSR, x.MXCSRMask = le.Uint32(buf[24:]), le.Uint32(buf[28:])
	copy(x.ST[:], buf[32:])
	copy(x.XMM[:], buf[160:])
	if l.Legacy || len(buf) < xLegacyLen+xHeaderLen {
		return x, nil
	}
	x.Extended = true
	x.Used = le.Uint64(buf[xLegacyLen:])
	if le.Uint64(buf[xLegacyLen+8:])>>63 != 0 {
		return x, fmt.Errorf("extended state is in the compacted format")
	}
	for n := 2; n < xNumComps; n++ {
		used := x.Used>>n&1 != 0
		if !used && (!xNamed(n) || l.Len[n] == 0) {
			continue
		}
		data, err := l.slice(buf, n)
		if err != nil && used {
			return x, err
		}
		if err == nil {
			x.Components = append(x.Components, XComponent{n, slices.Clone(data)})
		}
	}
	return x, nil
}

// xNamed reports whether a component is one of those with a name above: those that images have.
func xNamed(n int) bool {
	const named = 1<<XAVX | 1<<XBndRegs | 1<<XBndCSR | 1<<XOpmask | 1<<XZMMHi256 | 1<<XHi16ZMM | 1<<XPKRU | 1<<XCETUser
	return named>>n&1 != 0
}

// slice returns the place of a component in a buffer.
func (l *XLayout) slice(buf []byte, n int) ([]byte, error) {
	off, size := uint64(l.Offset[n]), uint64(l.Len[n])
	if size == 0 {
		return nil, fmt.Errorf("the processor has no extended state %d", n)
	}
	if off < xLegacyLen+xHeaderLen || off+size > uint64(len(buf)) {
		return nil, fmt.Errorf("extended state %d is at %d to %d of a buffer of %d bytes", n, off, off+size, len(buf))
	}
	return buf[off : off+size], nil
}

// Bytes returns the buffer that PTRACE_SETREGSET takes. A component that was in use and that this processor does not have, or
// has in another size, is an error: the thread would go on with other values.
func (l *XLayout) Bytes(x *XState) ([]byte, error) {
	size := max(l.Size, xLegacyLen)
	buf := make([]byte, size)
	le := binary.LittleEndian
	le.PutUint16(buf, x.ControlWord)
	le.PutUint16(buf[2:], x.StatusWord)
	le.PutUint16(buf[4:], x.TagWord)
	le.PutUint16(buf[6:], x.Opcode)
	le.PutUint64(buf[8:], x.LastIP)
	le.PutUint64(buf[16:], x.LastDP)
	// A bit of MXCSR that the processor does not have would make the kernel refuse the whole buffer.
	le.PutUint32(buf[24:], x.MXCSR)
	le.PutUint32(buf[28:], x.MXCSRMask)
	if l.MXCSRMask != 0 {
		if x.MXCSR&^l.MXCSRMask != 0 {
			return nil, fmt.Errorf("mxcsr %#x has bits that this processor does not have", x.MXCSR)
		}
		le.PutUint32(buf[28:], l.MXCSRMask)
	}
	copy(buf[32:], x.ST[:])
	copy(buf[160:], x.XMM[:])
	if l.Legacy || size < xLegacyLen+xHeaderLen {
		if rest := x.Used &^ (1<<XFP | 1<<XSSE); rest != 0 {
			return nil, fmt.Errorf("the processor has no extended state %d", bits.TrailingZeros64(rest))
		}
		return buf, nil
	}
	used := x.Used
	if !x.Extended {
		used = 1<<XFP | 1<<XSSE
	}
	if missing := used &^ l.SupportedBV; l.SupportedBV != 0 && missing != 0 {
		return nil, fmt.Errorf("the processor has no extended state %d", bits.TrailingZeros64(missing))
	}
	le.PutUint64(buf[xLegacyLen:], used)
	for _, c := range x.Components {
		inUse := used>>c.Number&1 != 0
		at, err := l.slice(buf, c.Number)
		if err != nil {
			if inUse {
				return nil, err
			}
			continue
		}
		if len(c.Data) > len(at) && inUse {
			return nil, fmt.Errorf("extended state %d has %d bytes here, the thread had %d", c.Number, len(at), len(c.Data))
		}
		copy(at, c.Data)
	}
	for rest := used &^ (1<<XFP | 1<<XSSE); rest != 0; rest &= rest - 1 {
		if n := bits.TrailingZeros64(rest); x.Component(n) == nil {
			return nil, fmt.Errorf("extended state %d was in use, and is not there", n)
		}
	}
	return buf, nil
}

// ARM64Registers are the registers of an arm64 thread.
type ARM64Registers struct {
	X              [31]uint64
	SP, PC, PState uint64
	TLS            uint64     // TPIDR_EL0
	V              [64]uint64 // V0 to V31, the low half of each first
	FPSR, FPCR     uint32
	PAC            *PACKeys // pointer authentication; nil for none
}

// Arch returns ARM64.
func (*ARM64Registers) Arch() Arch { return ARM64 }

// PACKeys are the keys of pointer authentication, the low half of each first.
type PACKeys struct {
	Address *PACAddressKeys
	Generic *[2]uint64
}

// PACAddressKeys are the keys for addresses.
type PACAddressKeys struct {
	IA, IB, DA, DB [2]uint64
	Enabled        uint64
}
