package snapshot

import (
	"iter"
	"strconv"
	"time"
)

// A Tree is a tree of processes, stopped at one instant.
type Tree struct {
	Arch     Arch
	PageSize uint64 // in bytes; of the machine that was dumped

	// Tasks are the processes. The first is the root; each other stands after its parent.
	Tasks []*Task

	Spaces     []*Space
	Tables     []*Table
	FSContexts []*FSContext
	Handlers   []*Handlers
	Files      []*File
	Ghosts     []*Ghost
	Pipes      []*Pipe
	Terminals  []*Terminal

	Origin Origin
}

// Root returns the process that the others descend from, nil for a tree without processes.
func (t *Tree) Root() *Task {
	if len(t.Tasks) == 0 {
		return nil
	}
	return t.Tasks[0]
}

// Origin is where and when a tree was dumped.
type Origin struct {
	Namespaces Namespaces // those of the program that made the dump; a task with the same has none of its own
	CgroupSet  uint32     // that of the program that made the dump
	Uptime     uint64     // of CLOCK_BOOTTIME, in microseconds; 0 for not known
	RunID      string     // of the dump, any text; empty for none
	LSM        LSM
	Clocks     *Clocks // nil for not known
	// NetworkLock is how connections were held meanwhile: CRIU's number, nil for not known.
	NetworkLock *uint32
	TCPClose    bool // TCP connections are to be closed, not restored
}

// LSM is the security module that labels processes.
type LSM uint8

// The security modules that images can name.
const (
	LSMNone LSM = iota
	LSMSELinux
	LSMAppArmor
)

// Clocks are the values of the clocks that go on over a dump, in the time namespace of the tree.
type Clocks struct {
	Monotonic, Boottime Timespec
}

// Timespec is a time as the kernel has it. Nsec is below 1e9.
type Timespec struct {
	Sec, Nsec int64
}

// Add returns the time later by a duration.
func (t Timespec) Add(d time.Duration) Timespec {
	n := t.Nsec + int64(d%time.Second)
	t.Sec += int64(d / time.Second)
	switch {
	case n < 0:
		return Timespec{t.Sec - 1, n + 1e9}
	case n >= 1e9:
		return Timespec{t.Sec + 1, n - 1e9}
	}
	return Timespec{t.Sec, n}
}

// Sub returns how much later the time is than another, which must be less than some hundred years.
func (t Timespec) Sub(u Timespec) time.Duration {
	return time.Duration(t.Sec-u.Sec)*time.Second + time.Duration(t.Nsec-u.Nsec)
}

// IsZero reports whether the time is zero, which for a timer means "off".
func (t Timespec) IsZero() bool { return t == Timespec{} }

// A PID is the number of a task or a thread: one for each pid namespace in which it is seen, from that of the tree's root
// inwards. It has at least one.
type PID []int

// Num returns the number in the namespace of the tree's root. It is the name of the task everywhere in the model.
func (p PID) Num() int { return p[0] }

// Inner returns the number that the task itself sees.
func (p PID) Inner() int { return p[len(p)-1] }

// String returns the numbers, the outermost first: "7", or "7/1" in a pid namespace of its own.
func (p PID) String() string {
	var s []byte
	for i, n := range p {
		if i > 0 {
			s = append(s, '/')
		}
		s = strconv.AppendInt(s, int64(n), 10)
	}
	return string(s)
}

// TaskState is what a process was doing.
type TaskState uint8

// The states.
const (
	Running TaskState = iota + 1 // or sleeping: it may run
	Stopped                      // by a signal, as a shell's job is
	Dead                         // a zombie: it has an exit status and nothing else
)

// String returns the state's name in lower case.
func (s TaskState) String() string {
	switch s {
	case Running:
		return "running"
	case Stopped:
		return "stopped"
	case Dead:
		return "dead"
	}
	return "state " + strconv.Itoa(int(s))
}

// A Task is a process. Of a dead one only what is marked so is there.
type Task struct {
	PID     PID // also of the dead
	Parent  int // 0 for the root; also of the dead
	Group   int // the process group; 0 for one that the tree's pid namespace has no number for; also of the dead
	Session int // likewise; also of the dead
	State   TaskState
	Comm    string // the name of the first thread when the process was looked at; at most 15 bytes; also of the dead
	Exit    uint32 // the status as wait(2) gives it; only of the dead
	StopSig int    // the signal that stopped it; only of the stopped

	// KernelFlags are the PF_ flags of the kernel. They are a curiosity and are not restored.
	KernelFlags uint32

	Threads []*Thread // the first has the number of the process

	Space    ObjectID // its address space, in Tree.Spaces
	Table    ObjectID // its descriptors, in Tree.Tables
	FS       ObjectID // in Tree.FSContexts
	Handlers ObjectID // in Tree.Handlers

	Namespaces Namespaces

	Personality   uint32  // PER_ flags
	Subreaper     bool    // PR_SET_CHILD_SUBREAPER
	LoginUID      *uint32 // 4294967295 for none; nil for not known: a kernel without auditing
	OOMScoreAdj   *int32  // -1000 to 1000
	CoreFilter    *uint32 // /proc/PID/coredump_filter
	Membarrier    uint32  // the MEMBARRIER_CMD_ bits of what it has registered for
	Limits        []Limit // by RLIMIT_ number
	Pending       []Siginfo
	IntervalTimer [3]IntervalTimer // by ITIMER_ number
	Timers        []Timer
}

// Leader returns the first thread, nil for a dead process.
func (t *Task) Leader() *Thread {
	if len(t.Threads) == 0 {
		return nil
	}
	return t.Threads[0]
}

// An ObjectID is the number of a thing that tasks may share. It is unique among things of a kind; 0 is none.
type ObjectID uint32

// Namespaces are the namespaces of a task, by numbers that are unique over all kinds; 0 for not known. They mean nothing to
// the kernel: equal numbers are the same namespace, that is all.
type Namespaces struct {
	PID, Net, IPC, UTS, Mount, User, Cgroup, Time uint32
}

// Own iterates over the names of those namespaces that are not those of another, the dumping program's. 0 is none of them: older
// images have it for namespaces that their kernel or their CRIU did not know.
func (n Namespaces) Own(other Namespaces) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, ns := range []struct {
			kind        string
			own, dumper uint32
		}{
			{"pid", n.PID, other.PID}, {"network", n.Net, other.Net}, {"IPC", n.IPC, other.IPC}, {"UTS", n.UTS, other.UTS},
			{"mount", n.Mount, other.Mount}, {"user", n.User, other.User}, {"cgroup", n.Cgroup, other.Cgroup}, {"time", n.Time, other.Time},
		} {
			if ns.own != 0 && ns.own != ns.dumper && !yield(ns.kind) {
				return
			}
		}
	}
}

// A Thread is a thread, or the one of a process that has no others.
type Thread struct {
	TID PID

	// Exited is a first thread that has ended while others go on. It has nothing but its number. CRIU has no image of it.
	Exited bool

	Comm       string // at most 15 bytes, none of them zero
	Registers  Registers
	Mask       SigSet
	Pending    []Siginfo
	AltStack   AltStack
	RobustList RobustList
	ClearTID   uint64 // address of what set_tid_address(2) got
	Rseq       *Rseq  // nil for not registered
	DeathSig   int    // PR_SET_PDEATHSIG
	Scheduling Scheduling
	TimerSlack *uint64 // PR_SET_TIMERSLACK, in nanoseconds; nil for not known
	Creds      Credentials
	Seccomp    SeccompMode
	Filter     *uint32 // its last seccomp filter, a number of the dump's; nil for none
	CgroupSet  uint32  // a number of the dump's; 0 for not known

	// Table and FS are things that are not its process's, by unshare(2), though perhaps another's; 0, as nearly always, where it has
	// those of the process.
	Table, FS ObjectID
}

// SeccompMode is what a thread may do.
type SeccompMode uint8

// The kernel's modes.
const (
	SeccompOff SeccompMode = iota
	SeccompStrict
	SeccompFilter
)

// AltStack is what sigaltstack(2) has set.
type AltStack struct {
	Base, Size uint64
	Flags      uint32 // SS_ flags
}

// RobustList is what set_robust_list(2) has set.
type RobustList struct {
	Head uint64 // an address; 0 for none
	Len  uint32
}

// Rseq is what rseq(2) has registered.
type Rseq struct {
	Area      uint64 // an address
	Size      uint32
	Signature uint32
	// Section is the address of the critical section's descriptor that the thread was in, nil for not known. A collector that
	// has moved the thread to its abort handler leaves it nil.
	Section *uint64
}

// Scheduling is how a thread is scheduled.
type Scheduling struct {
	Policy   uint32 // a SCHED_ number, SCHED_RESET_ON_FORK may be added
	Nice     int32
	Priority uint32   // of SCHED_FIFO and SCHED_RR, otherwise 0
	Affinity []uint64 // bit n of word m is processor m*64+n; nil for not known, empty for all that there are
	IOPrio   *uint32  // as ioprio_get(2) gives it; nil for not known
}

// A Limit is a resource limit; all bits set is unlimited.
type Limit struct {
	Soft, Hard uint64
}

// Credentials are who a thread is.
type Credentials struct {
	UID, EUID, SUID, FSUID uint32
	GID, EGID, SGID, FSGID uint32
	Groups                 []uint32

	Inheritable, Permitted, Effective, Bounding, Ambient Capabilities

	SecureBits uint32 // PR_SET_SECUREBITS
	NoNewPrivs bool

	LSMProfile    string // empty for none
	LSMSockCreate string // SELinux: the label of sockets to come
	AppArmor      []byte // nil for none
}

// Capabilities are a set; bit n is capability n.
type Capabilities uint64
