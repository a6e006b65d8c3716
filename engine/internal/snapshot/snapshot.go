// Package snapshot is the neutral model of what is frozen: plain data, no kernel, no images. Packages in state/ fill it
// from the kernel and turn it into image entries.
//
// Lists of pids and the like have one number only so far: of the engine's own pid namespace.
package snapshot

// A Task is a process.
type Task struct {
	PID, PPID, PGID, SID int
	Stopped              bool // by job control
	Comm                 string
	Flags                uint32 // PF_ flags, from stat
	Personality          uint32
	Threads              []Thread // the leader first

	Actions        [64]Action // of signal N at N-1
	Pending        []Siginfo  // for the process
	Itimers        [3]Itimer  // real, virtual, prof
	Limits         [16]Limit
	LoginUID       *uint32
	OOMScoreAdj    int
	ChildSubreaper bool
	Membarrier     uint32 // registrations, as MEMBARRIER_CMD_GET_REGISTRATIONS tells

	MM    MM
	Files []FD
	Cwd   File
	Root  File
	Exe   File
	Umask uint32
}

// A Thread is a thread of a process.
type Thread struct {
	TID  int
	Comm string
	X86  *X86 // registers

	Mask         uint64
	Pending      []Siginfo // for the thread
	AltStack     AltStack
	ClearTID     uint64 // set_tid_address
	RobustList   uint64
	RobustLength uint64
	Rseq         Rseq
	PdeathSig    uint32
	Policy       uint32
	Nice         int32
	Priority     uint32
	Creds        Creds
}

// X86 are the registers of a thread on x86-64.
type X86 struct {
	R15, R14, R13, R12, BP, BX, R11, R10, R9, R8, AX, CX, DX, SI, DI uint64
	OrigAX, IP, CS, Flags, SP, SS, FSBase, GSBase, DS, ES, FS, GS    uint64

	XSave  []byte // in the standard, not the compacted, format
	Layout XLayout
}

// XLayout is where the components of an XSAVE area lie, by number; those that the processor has not have length 0.
type XLayout [20]struct{ Offset, Length uint32 }

// AltStack is a signal stack, as sigaltstack tells.
type AltStack struct {
	SP    uint64
	Flags uint32
	Size  uint64
}

// Rseq is a registration for restartable sequences.
type Rseq struct {
	Addr      uint64
	Size      uint32
	Signature uint32
}

// Action is a signal's disposition, as the kernel has it.
type Action struct{ Handler, Flags, Restorer, Mask uint64 }

// Siginfo is a queued signal: a siginfo_t.
type Siginfo [128]byte

// Itimer is an interval timer, in microseconds each.
type Itimer struct{ IntervalSec, IntervalUsec, ValueSec, ValueUsec uint64 }

// Limit is a soft and a hard limit.
type Limit struct{ Soft, Hard uint64 }

// Creds are the credentials of a thread.
type Creds struct {
	UID, EUID, SUID, FSUID, GID, EGID, SGID, FSGID uint32
	Groups                                         []uint32
	Inheritable, Permitted, Effective, Bounding    uint64
	Ambient                                        uint64
	Securebits                                     uint32
	NoNewPrivs                                     bool
}

// MM is an address space.
type MM struct {
	StartCode, EndCode, StartData, EndData, StartStack, StartBrk, Brk uint64
	ArgStart, ArgEnd, EnvStart, EnvEnd                                uint64
	Auxv                                                              []uint64
	Dumpable                                                          int
	THPDisabled                                                       bool
	VMAs                                                              []VMA
	Pages                                                             []PageRun // to be saved
}

// A VMA is a mapping.
type VMA struct {
	Start, End uint64
	Kind       VMAKind
	Prot       uint32 // PROT_ bits
	Shared     bool
	Advice     uint64 // 1<<MADV_… for what madvise has set
	GrowsDown  bool
	NoReserve  bool
	Locked     bool
	File       *File // what is mapped
	Offset     uint64
}

// A VMAKind says what a mapping is.
type VMAKind int

// Kinds of mappings.
const (
	VMAAnonymous VMAKind = iota
	VMAHeap
	VMAFile
	VMAVDSO
	VMAVvar
	VMAVsyscall
)

// A PageRun is a run of bytes, whole pages, to be saved.
type PageRun struct{ Start, End uint64 }

// A File is an open file, or one that is mapped or stood in.
type File struct {
	Path  string
	Flags uint32 // of open, without O_CLOEXEC
	Pos   uint64
	Mode  uint32  // st_mode
	Size  *uint64 // of a regular file, nil where it is not known
	// Description is equal for descriptors that share an open file description, 0 for a file that has none.
	Description int
}

// FD is a slot of a descriptor table.
type FD struct {
	Number      int
	CloseOnExec bool
	File        File
}
