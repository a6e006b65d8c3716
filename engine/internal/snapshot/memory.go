package snapshot

// A Range is a range of addresses. End is the first that is not in it.
type Range struct {
	Start, End uint64
}

// Len returns the length in bytes.
func (r Range) Len() uint64 { return r.End - r.Start }

// A Space is an address space: mappings, and the addresses that the kernel keeps of it. The pages are elsewhere; see the
// package that moves them.
type Space struct {
	ID ObjectID

	StartCode, EndCode uint64
	StartData, EndData uint64
	StartStack         uint64
	StartBrk, Brk      uint64
	ArgStart, ArgEnd   uint64
	EnvStart, EnvEnd   uint64
	Auxv               []uint64 // pairs of key and value, without AT_NULL
	Exe                FileID
	Dumpable           int        // PR_GET_DUMPABLE: 0, 1 or 2
	THPDisabled        bool       // PR_SET_THP_DISABLE
	MergeAny           bool       // PR_SET_MEMORY_MERGE
	LockFuture         FutureLock // mlockall(MCL_FUTURE)
	VMAs               []VMA      // ascending, none over another
	Guards             []Range
}

// FutureLock is whether mappings to come are locked.
type FutureLock uint8

// What mlockall(2) may have asked for.
const (
	LockNone    FutureLock = iota
	LockAll                // MCL_FUTURE
	LockOnFault            // MCL_FUTURE | MCL_ONFAULT
)

// VMAKind is what a mapping is of.
type VMAKind uint8

// The kinds. Those after VSyscall are known by name and not restored by the engine.
const (
	AnonPrivate VMAKind = iota + 1
	FilePrivate
	FileShared
	VDSO     // code of the kernel's
	VVar     // its data: [vvar] and [vvar_vclock] as one
	VSyscall // the page at the top of the address space, which is always there
	AnonShared
	SysV        // shmat(2)
	PacketRing  // of a packet socket
	AIORing     // io_setup(2)
	MemFD       // memfd_create(2)
	ShadowStack // of user-mode CET
	Plugin      // restored by a plugin of CRIU's
)

var vmaKinds = [...]string{AnonPrivate: "private", FilePrivate: "private of a file", FileShared: "shared of a file", VDSO: "vDSO", VVar: "vvar", VSyscall: "vsyscall page",
	AnonShared: "shared memory", SysV: "System V shared memory", PacketRing: "ring of a packet socket", AIORing: "AIO ring", MemFD: "memfd", ShadowStack: "shadow stack", Plugin: "mapping of a CRIU plugin"}

// String returns a name for people.
func (k VMAKind) String() string {
	if int(k) < len(vmaKinds) && vmaKinds[k] != "" {
		return vmaKinds[k]
	}
	return "mapping of an unknown kind"
}

// OfFile reports whether the mapping is of a file that File names.
func (k VMAKind) OfFile() bool { return k == FilePrivate || k == FileShared }

// OfKernel reports whether the kernel itself makes the mapping and its pages.
func (k VMAKind) OfKernel() bool { return k == VDSO || k == VVar || k == VSyscall }

// A VMA is a mapping.
type VMA struct {
	Range
	Kind  VMAKind
	Prot  uint32 // PROT_ bits
	Flags uint32 // MAP_ bits as mmap(2) takes them, without MAP_FIXED

	File      FileID // of a file mapping
	Offset    uint64 // in the file
	OpenFlags uint32 // how a file that is mapped must be opened: O_RDONLY or O_RDWR
	Segment   uint64 // the number of a shared segment

	Advice  uint64 // bit n is madvise(2) advice n, of those that stay
	Heap    bool   // has some of what brk(2) gave; informative
	Unbound bool   // not counted against the commit limit
	Name    string // PR_SET_VMA_ANON_NAME; empty for none

	// Accounted says that it counts against the commit limit, as private memory does from when it may be written for the first
	// time. It keeps mappings apart that would else be one.
	Accounted   bool
	LockOnFault bool // of what is locked: only as it is touched (MLOCK_ONFAULT)
}

// Joined returns the mappings at the beginning of a list, which is not empty, as one, and how many they are: the first, and those that are
// next to the one before and go on as what is joined so far.
func Joined(vmas []VMA, goesOn func(v, next *VMA) bool) (v VMA, n int) {
	v, n = vmas[0], 1
	for n < len(vmas) && vmas[n].Start == v.End && goesOn(&v, &vmas[n]) {
		v.End = vmas[n].End
		n++
	}
	return v, n
}

// FirstProt is the protection that a mapping is made with and filled under. What counts against the commit limit does so because it
// could be written at some time; it would be a mapping of another kind otherwise, and not be merged with its neighbours.
func (v *VMA) FirstProt() uint32 {
	const protWrite, words = 2, 1 | 2 | 4
	prot := v.Prot & words
	if v.Accounted && v.Kind != FileShared {
		prot |= protWrite
	}
	return prot
}

// LikelyAccounted reports whether a mapping like this counts against the commit limit as a rule: private memory that may be
// written, and such without a file that may be read, since somebody must have written it.
func (v *VMA) LikelyAccounted() bool {
	const protRead, protWrite, noReserve = 1, 2, 0x4000
	switch {
	case v.Flags&noReserve != 0:
		return false
	case v.Kind == AnonPrivate:
		return v.Prot&(protRead|protWrite) != 0
	}
	return v.Kind == FilePrivate && v.Prot&protWrite != 0
}
