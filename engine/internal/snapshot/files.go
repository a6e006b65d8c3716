package snapshot

// A FileID is the number of an open file description, unique in a tree; 0 is none.
type FileID uint32

// A Table is a descriptor table.
type Table struct {
	ID    ObjectID
	Slots []Slot // in ascending order of FD
}

// A Slot is a descriptor: a number that stands for a file.
type Slot struct {
	FD          int
	File        FileID
	CloseOnExec bool
}

// A File is an open file description: what dup(2) and fork(2) share. Files that are only mapped, executed or somebody's
// working directory are files here too, as they have to be opened.
type File struct {
	ID     FileID
	Flags  uint32 // as open(2) takes them: access, O_APPEND, O_NONBLOCK, O_PATH …; never O_CREAT, O_EXCL, O_TRUNC, O_CLOEXEC
	Owner  Owner
	Object Object
}

// Owner is who gets SIGIO; see fcntl(2), F_SETOWN_EX and F_SETSIG.
type Owner struct {
	Type      uint32 // an F_OWNER_ number
	PID       int    // 0 for nobody
	Signal    uint32 // 0 for SIGIO
	UID, EUID uint32 // in whose name the signal is sent
}

// An Object is what a file is: *Regular, *PipeEnd, *FIFOEnd, *EventFD, *Epoll, *SignalFD, *TimerFD, *RPCSocket or *TTY.
type Object interface {
	// Kind returns the name of the kind for people.
	Kind() string
}

// A Path is a name in a mount.
type Path struct {
	Mount int32  // a mount of the dump's; -1 for the one that the tree's root directory is in
	Name  string // absolute, as seen from the root of the tree
}

// Regular is a file that has a name: a regular file, a directory, a device, a fifo's node.
type Regular struct {
	Path Path
	Pos  uint64 // the offset; all bits set for a file that has none

	// External files are not opened by name: whoever asks for the restore hands them in, by the key that Path.Name is.
	External bool

	// Ghost stands for a file whose name is gone; 0 for none. Path is the name that it had.
	Ghost GhostID
	// Link is the file that has the name which the dump has made for this one, whose own is gone; 0 for none.
	Link FileID

	Mode     *uint32 // st_mode, nil for not known; to be checked
	Size     *uint64 // of a regular file, nil for not known; to be checked
	BuildID  []byte  // of an ELF file, nil for not known; to be checked
	Checksum *Checksum
}

// A GhostID is the number of a ghost; 0 is none.
type GhostID uint32

// A Ghost is a file without a name, which lives as long as somebody has it. All files of one inode have the same. What is in it
// is not here, as pages are not.
type Ghost struct {
	ID           GhostID
	Mode         uint32 // st_mode: a regular file, a directory, a fifo, a symbolic link
	UID, GID     uint32
	Device       *uint32 // of the file system, as the kernel numbers it; informative
	Inode        *uint64 // informative
	Atime, Mtime *Timespec

	Target string // of a symbolic link
	Sparse bool   // it has holes, and the image has only what is between them
	Size   uint64 // of one with holes; else the image says
}

// Checksum is one of a file's content, or of parts of it.
type Checksum struct {
	Sum       uint32
	Config    *uint32
	Parameter *uint32
}

// A PipeID is the number of a pipe or a fifo, unique among both.
type PipeID uint32

// A Pipe is what the ends of a pipe have in common. One that is empty and of the usual capacity may have no entry.
type Pipe struct {
	ID       PipeID
	FIFO     bool
	Capacity uint32 // in bytes, as F_GETPIPE_SZ gives it; 0 for not known
	Data     []byte // what is in it
	// Packets are the lengths of the packets that Data is made of (O_DIRECT), nil where it is none or not known.
	Packets []uint32
}

// PipeEnd is an end of a pipe; the access mode in the flags says which. O_DIRECT is packet mode.
type PipeEnd struct {
	Pipe PipeID
}

// FIFOEnd is an opened fifo. Its flags, owner and name are those of Node.
type FIFOEnd struct {
	Pipe PipeID
	Node FileID // the Regular that has the name
}

// EventFD is one of eventfd(2).
type EventFD struct {
	Counter   uint64
	Semaphore bool // EFD_SEMAPHORE: a read takes one
}

// Epoll is one of epoll_create(2).
type Epoll struct {
	Items []EpollItem
}

// EpollItem is a file that is watched. The kernel knows it by the file and the number that it had when it was added.
type EpollItem struct {
	FD     int // the number
	Events uint32
	Data   uint64
	File   FileID // 0 for not known: what FD stands for in the table of a task that has the epoll file

	Dev   *uint32 // of the file that is watched; nil for not known
	Inode *uint64
	Pos   *uint64
}

// SignalFD is one of signalfd(2).
type SignalFD struct {
	Mask SigSet
}

// TimerFD is one of timerfd_create(2).
type TimerFD struct {
	Clock        uint32 // a CLOCK_ number
	SettimeFlags uint32 // TFD_TIMER_ flags
	Ticks        uint64 // expirations that were not read

	Interval, Remaining Timespec // zero Remaining is off
}

// RPCSocket is the unix socket on which a process has asked for its own dump, and on which it finds the answer when it is
// restored. Options are as getsockopt(2) gives them.
type RPCSocket struct {
	Inode                     uint32
	Type                      uint32 // a SOCK_ number
	SendBuffer, ReceiveBuffer uint32 // in bytes
	SendTimeout               Timespec
	ReceiveTimeout            Timespec
	Priority, ReceiveLow      uint32
	PassCred, PassSec         bool
	NetNS                     uint32 // a number of the dump's; 0 for not known
}

// TTY is an opened terminal.
type TTY struct {
	Terminal uint32 // its number in Tree.Terminals
	Node     FileID // the Regular that has the name; 0 for none
}

// TerminalKind is what sort of terminal it is.
type TerminalKind uint8

// The kinds.
const (
	PTY TerminalKind = iota + 1
	Console
	VirtualTerminal
	ControllingTTY // opened as /dev/tty
	ExternalTTY    // handed in by whoever asks for the restore
	SerialTTY
)

// A Terminal is what all files of a terminal have in common.
type Terminal struct {
	ID         uint32
	Kind       TerminalKind
	Device     uint32  // of the node, as the kernel encodes it
	FSDevice   *uint32 // of the file system that the node is in
	Locked     bool    // TIOCSPTLCK
	Exclusive  bool    // TIOCEXCL
	PacketMode bool    // TIOCPKT
	Session    int     // 0 for none
	Foreground int     // the process group; 0 for none
	Settings   *Termios
	Lock       *Termios // TIOCGLCKTRMIOS
	Window     *Window
	Index      *uint32 // of a pseudoterminal
	UID, GID   *uint32 // owner of the node
	Unread     []byte  // what was typed and not read
}

// Termios are the settings of a terminal; see termios(3).
type Termios struct {
	Iflag, Oflag, Cflag, Lflag, Line, Ispeed, Ospeed uint32
	CC                                               []uint32 // as images have them: four characters to a word
}

// Window is a terminal's size.
type Window struct {
	Rows, Cols, XPixel, YPixel uint32
}

// FSContext is the part of a process that chdir, chroot and umask change.
type FSContext struct {
	ID        ObjectID
	Cwd, Root FileID
	Umask     *uint32 // nil for not known: images of old CRIUs do not say
}

// Kind returns "file".
func (*Regular) Kind() string { return "file" }

// Kind returns "pipe".
func (*PipeEnd) Kind() string { return "pipe" }

// Kind returns "fifo".
func (*FIFOEnd) Kind() string { return "fifo" }

// Kind returns "eventfd".
func (*EventFD) Kind() string { return "eventfd" }

// Kind returns "epoll".
func (*Epoll) Kind() string { return "epoll" }

// Kind returns "signalfd".
func (*SignalFD) Kind() string { return "signalfd" }

// Kind returns "timerfd".
func (*TimerFD) Kind() string { return "timerfd" }

// Kind returns "socket of the conversation".
func (*RPCSocket) Kind() string { return "socket of the conversation" }

// Kind returns "terminal".
func (*TTY) Kind() string { return "terminal" }
