package criu

import (
	"os"

	"golang.org/x/sys/unix"
)

// LogLevel is the verbosity of the peer's log.
type LogLevel int

const (
	LogDefault LogLevel = 0  // the peer's default, warnings
	LogNone    LogLevel = -1 // nothing but messages that have no level
	LogError   LogLevel = 1
	LogWarn    LogLevel = 2
	LogInfo    LogLevel = 3 // time stamps too
	LogDebug   LogLevel = 4
)

// CPUCap is a set of CPU capabilities, as bits of CRIU's own mask. The zero value is the peer's default.
type CPUCap uint32

const (
	CPUCapFPU  CPUCap = 1 << 0 // the FPU must be compatible
	CPUCapCPU  CPUCap = 1 << 1 // all capabilities must be the same
	CPUCapIns  CPUCap = 1 << 2 // every instruction must be there
	CPUCapAll  CPUCap = 1<<32 - 1
	CPUCapNone CPUCap = 1 << 30 // no check; a bit of its own because CRIU's value for it is 0
)

// Namespaces is a set of namespaces, as CLONE_NEW flags of clone(2).
type Namespaces uint32

// NamespaceNet is the network namespace, the only one that CRIU can leave empty.
const NamespaceNet Namespaces = unix.CLONE_NEWNET

// PageServerAddr says where a page server is, or where it is to listen.
type PageServerAddr struct {
	Address string // host name or IP address
	Port    int    // TCP port; 0 lets a server that is started choose
	// File is a connected socket to use instead, with a peer that is the caller's child. It stays the caller's.
	File *os.File
}

// Veth names the outer end of a veth device.
type Veth struct{ Inside, Outside string }

// ExtMount is an entry of the map of external mounts: mount point and name at the dump, name and mount point at the
// restore.
type ExtMount struct{ Key, Value string }

// CgroupRoot roots a cgroup controller at Path; with no Controller, all that have no root of their own.
type CgroupRoot struct{ Controller, Path string }

// InheritFile lets an open file of the caller's stand in for a dumped one, which Key names as CRIU does: pipe:[1234],
// socket:[1234], tty[8800:2], file[42:1234], or a path without its leading slash. The file stays the caller's.
type InheritFile struct {
	Key  string
	File *os.File
}

// JoinNamespace is a namespace to restore into. Kind is ipc, net, time, user or uts; Target a pid or the path of a
// namespace file; Extra, for a user namespace, "UID,GID".
type JoinNamespace struct{ Kind, Target, Extra string }

// Event is a notification.
type Event struct {
	// Name is the stage as the peer spells it: pre-dump, network-lock, post-restore, orphan-pts-master, … A peer may
	// send names that are not listed here.
	Name string
	// PID is the root task's, in the stages that have one (setup-namespaces, post-restore), else 0.
	PID int
	// File is the descriptor that came along, nil for none. It is closed when the callback returns; a callback that
	// wants to keep it calls TakeFile.
	File *os.File
	// External, in answer to query-ext-files, are more external resources to leave out of the dump.
	External []string
}

// TakeFile returns the event's file, which is the caller's to close from then on, nil for none.
func (ev *Event) TakeFile() *os.File {
	f := ev.File
	ev.File = nil
	return f
}
