// Package schema is the one description of CRIU's images in this project: every message, field, number, type, label
// and default. The codec in image/entry is generated from it, and a test holds it field by field against the schema that
// go-criu ships. Adding what a new CRIU has means adding rows here and running go generate in image/entry.
//
// The facts are those of CRIU's images/*.proto (MIT licence) of version 4.2, which go-criu v8.3.0 carries. The package is
// plain data and imports next to nothing.
package schema

import (
	"slices"
	"strings"
)

// A Label says how often a field may stand in its message (protobuf 2's labels).
type Label int

const (
	opt Label = iota // Optional
	req              // Required
	rep              // Repeated
)

// The labels.
const (
	Optional = opt
	Required = req
	Repeated = rep
)

// A Field is one field of a message.
type Field struct {
	Num     int32
	Label   Label
	Type    string // a scalar of protobuf, or the name of a message or enum
	Name    string // as in CRIU's schema
	Default string // protobuf's default, as written there; "" for none
	Help    string // one line, no final stop; "" where the name says it all
}

// A Message is a message of the schema.
type Message struct {
	Name   string // as in CRIU's schema
	Go     string // the type in image/entry
	Help   string // goes on after the type's name
	Fields []Field
}

// A Value is one value of an enum.
type Value struct {
	Num  int32
	Name string // as in CRIU's schema
}

// An Enum is an enum of the schema.
type Enum struct {
	Name   string // as in CRIU's schema, a nested one with its message's name before it
	Go     string // the type in image/entry
	Help   string // goes on after the type's name
	Values []Value
}

// A Group is a part of the schema that becomes one file of image/entry.
type Group struct {
	Name     string
	Messages []Message
}

// Groups returns all messages. The caller must not change them.
func Groups() []Group {
	return []Group{
		{"core", core}, {"arch", arch}, {"mem", mem}, {"files", files}, {"sockets", sockets}, {"ns", ns},
	}
}

// Enums returns all enums. The caller must not change them.
func Enums() []Enum { return enums }

// GoName returns the Go name of a field or of an enum's value: sched_policy becomes SchedPolicy, mnt_id MntID.
func GoName(name string) string {
	if name == "X86_64" {
		return name // X8664 would be nobody's spelling
	}
	var b strings.Builder
	for word := range strings.SplitSeq(strings.ToLower(name), "_") {
		if word == "" {
			continue
		}
		switch {
		case slices.Contains(initialisms, word):
			b.WriteString(strings.ToUpper(word))
		case plurals[word] != "":
			b.WriteString(plurals[word])
		default:
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

var initialisms = []string{
	"abi", "aio", "cet", "cpu", "criu", "cs", "cg", "fd", "fs", "fsuid", "fsgid", "gid", "id", "ip", "ipc", "lsm", "mm", "mtu",
	"ns", "nsid", "oom", "pid", "pkru", "pty", "rpc", "rla", "sa", "sas", "sid", "st", "suid", "sgid", "tc", "tcp", "tfd", "thp",
	"tls", "tty", "ttl", "uid", "euid", "egid", "vm", "wd", "x86", "xmm", "ymmh", "zmm", "io", "arm", "ppc64", "s390", "riscv64",
	"mips", "fifo", "ctl", "amd",
}

// Words whose Go form is neither capitalised nor upper case.
var plurals = map[string]string{
	"ids": "IDs", "vmas": "VMAs", "aios": "AIOs", "gpregs": "GPRegs", "fpregs": "FPRegs", "oldmode": "OldMode",
	"aarch64": "AArch64", "loongarch64": "LoongArch64", "nspid": "NSPID", "pgid": "PGID", "ppid": "PPID", "nsids": "NSIDs",
	"inetsk": "InetSk", "unixsk": "UnixSk", "eventfd": "EventFD", "eventpoll": "EventPoll", "signalfd": "SignalFD",
	"packetsk": "PacketSk", "netlinksk": "NetlinkSk", "timerfd": "TimerFD", "memfd": "MemFD", "pidfd": "PidFD", "bpfmap": "BPFMap",
	"tunf": "TunF", "clockid": "ClockID", "lsmtype": "LSMType", "pgoff": "PgOff", "fpsimd": "FPSIMD", "ptr": "Ptr", "loginuid": "LoginUID", "fdinfo": "FDInfo", "fdflags": "FDFlags",
	"pages": "Pages", "shmid": "ShmID", "vmid": "VMID", "hwcap": "HWCap", "tcpopts": "TCPOpts", "umask": "Umask",
}
