package proc

import (
	"bytes"
	"io"
)

// IDs are a real, an effective, a saved and a file system id.
type IDs struct {
	Real, Effective, Saved, FS uint32
}

// Status is status. Sizes are in bytes; the kernel counts in KiB. A zombie and a kernel thread have no memory, and the
// lines about it are missing.
type Status struct {
	Name      string
	Umask     uint32
	State     byte // the letter, as in stat
	Tgid      int  // the process
	Ngid      int  // NUMA group
	PID       int  // the thread
	PPID      int
	TracerPID int // 0 for none
	UID, GID  IDs
	FDSize    uint64 // slots of the descriptor table
	Groups    []uint32

	// The numbers in each pid namespace, from the reader's to the innermost.
	NSTgid, NSPID, NSPGID, NSSID []int

	HasMM         bool // there were lines about memory
	VmPeak        uint64
	VmSize        uint64
	VmLck         uint64
	VmPin         uint64
	VmHWM         uint64
	VmRSS         uint64
	RssAnon       uint64
	RssFile       uint64
	RssShmem      uint64
	VmData        uint64
	VmStk         uint64
	VmExe         uint64
	VmLib         uint64
	VmPTE         uint64
	VmSwap        uint64
	HugetlbPages  uint64
	CoreDumping   bool
	THPEnabled    bool   // not by PR_SET_THP_DISABLE; true where the line is missing (before 5.0)
	UntagMask     uint64 // linear address masking; 0 where the line is missing (before 6.4)
	KernelThread  bool   // false where the line is missing
	Threads       int
	SigQ          uint64 // queued signals of the user
	SigQLimit     uint64
	SigPnd        uint64 // pending for the thread; bit 0 is signal 1, as in all masks
	ShdPnd        uint64 // pending for the process
	SigBlk        uint64
	SigIgn        uint64
	SigCgt        uint64
	CapInh        uint64
	CapPrm        uint64
	CapEff        uint64
	CapBnd        uint64
	CapAmb        uint64
	NoNewPrivs    bool
	Seccomp       int // 0 off, 1 strict, 2 filters
	SeccompCount  int // filters, -1 where the line is missing (before 5.9)
	CPUsAllowed   string
	MemsAllowed   string
	VolSwitches   uint64
	InvolSwitches uint64
	ThreadFeats   string // x86_Thread_features: "shstk wrss" (since 6.6)
	LockedFeats   string // x86_Thread_features_locked

	Extra []Field // lines that this type has no field for
}

// statusKeys are the lines that every kernel has for every task.
var statusKeys = [...]string{"Name", "State", "Tgid", "Pid", "PPid", "Uid", "Gid", "Threads", "SigPnd", "SigBlk", "CapEff"}

// ParseStatus parses status.
func ParseStatus(r io.Reader) (Status, error) {
	s := Status{THPEnabled: true, SeccompCount: -1}
	l := newLines(r)
	var seen [len(statusKeys)]bool
	for l.next() {
		key, value, ok := bytes.Cut(l.text, []byte(":"))
		if !ok {
			return s, l.bad("no colon")
		}
		if string(key) != "Name" { // a name may begin or end with blanks
			value = bytes.TrimSpace(value)
		}
		for i, k := range statusKeys {
			if k == string(key) {
				seen[i] = true
			}
		}
		if !s.set(key, value) {
			return s, l.bad("bad value")
		}
	}
	if err := l.failed(); err != nil {
		return s, err
	}
	for i, ok := range seen {
		if !ok {
			return s, l.bad("the file ends without the line %s", statusKeys[i])
		}
	}
	return s, nil
}

func (s *Status) set(key, v []byte) bool {
	if size := s.size(key); size != nil {
		s.HasMM = true
		return kilobytes(v, size)
	}
	if mask := s.mask(key); mask != nil {
		return len(v) == 16 && hex(v, mask)
	}
	switch string(key) {
	case "Name":
		name, ok := bytes.CutPrefix(v, []byte("\t"))
		s.Name = unescapeName(name)
		return ok
	case "Umask":
		return octal(v, &s.Umask)
	case "State":
		if len(v) > 0 {
			s.State = v[0]
		}
		return len(v) > 1 && v[1] == ' '
	case "Tgid":
		return number(v, &s.Tgid)
	case "Ngid":
		return number(v, &s.Ngid)
	case "Pid":
		return number(v, &s.PID)
	case "PPid":
		return number(v, &s.PPID)
	case "TracerPid":
		return number(v, &s.TracerPID)
	case "Uid":
		return s.UID.parse(v)
	case "Gid":
		return s.GID.parse(v)
	case "FDSize":
		return number(v, &s.FDSize)
	case "Groups":
		return list(v, &s.Groups)
	case "NStgid":
		return list(v, &s.NSTgid)
	case "NSpid":
		return list(v, &s.NSPID)
	case "NSpgid":
		return list(v, &s.NSPGID)
	case "NSsid":
		return list(v, &s.NSSID)
	case "CoreDumping":
		return flag(v, &s.CoreDumping)
	case "THP_enabled":
		return flag(v, &s.THPEnabled)
	case "untag_mask":
		v, ok := bytes.CutPrefix(v, []byte("0x"))
		return ok && hex(v, &s.UntagMask)
	case "Kthread":
		return flag(v, &s.KernelThread)
	case "Threads":
		return number(v, &s.Threads)
	case "SigQ":
		a, b, ok := bytes.Cut(v, []byte("/"))
		return ok && number(a, &s.SigQ) && number(b, &s.SigQLimit)
	case "NoNewPrivs":
		return flag(v, &s.NoNewPrivs)
	case "Seccomp":
		return number(v, &s.Seccomp)
	case "Seccomp_filters":
		return number(v, &s.SeccompCount)
	case "Cpus_allowed_list":
		s.CPUsAllowed = string(v)
	case "Mems_allowed_list":
		s.MemsAllowed = string(v)
	case "voluntary_ctxt_switches":
		return number(v, &s.VolSwitches)
	case "nonvoluntary_ctxt_switches":
		return number(v, &s.InvolSwitches)
	case "x86_Thread_features":
		s.ThreadFeats = string(v)
	case "x86_Thread_features_locked":
		s.LockedFeats = string(v)
	case "Cpus_allowed", "Mems_allowed": // long, and what their lists say
	default:
		const usual = 2
		if s.Extra == nil {
			s.Extra = make([]Field, 0, usual)
		}
		s.Extra = append(s.Extra, Field{string(key), string(v)})
	}
	return true
}

func (s *Status) size(key []byte) *uint64 {
	switch string(key) {
	case "VmPeak":
		return &s.VmPeak
	case "VmSize":
		return &s.VmSize
	case "VmLck":
		return &s.VmLck
	case "VmPin":
		return &s.VmPin
	case "VmHWM":
		return &s.VmHWM
	case "VmRSS":
		return &s.VmRSS
	case "RssAnon":
		return &s.RssAnon
	case "RssFile":
		return &s.RssFile
	case "RssShmem":
		return &s.RssShmem
	case "VmData":
		return &s.VmData
	case "VmStk":
		return &s.VmStk
	case "VmExe":
		return &s.VmExe
	case "VmLib":
		return &s.VmLib
	case "VmPTE":
		return &s.VmPTE
	case "VmSwap":
		return &s.VmSwap
	case "HugetlbPages":
		return &s.HugetlbPages
	}
	return nil
}

func (s *Status) mask(key []byte) *uint64 {
	switch string(key) {
	case "SigPnd":
		return &s.SigPnd
	case "ShdPnd":
		return &s.ShdPnd
	case "SigBlk":
		return &s.SigBlk
	case "SigIgn":
		return &s.SigIgn
	case "SigCgt":
		return &s.SigCgt
	case "CapInh":
		return &s.CapInh
	case "CapPrm":
		return &s.CapPrm
	case "CapEff":
		return &s.CapEff
	case "CapBnd":
		return &s.CapBnd
	case "CapAmb":
		return &s.CapAmb
	}
	return nil
}

func (ids *IDs) parse(v []byte) bool {
	var all [4]uint32
	for i := range all {
		var w []byte
		if w, v = word(v); !number(w, &all[i]) {
			return false
		}
	}
	*ids = IDs{all[0], all[1], all[2], all[3]}
	return len(v) == 0
}

// list parses numbers with blanks between them.
func list[T integer](v []byte, all *[]T) bool {
	for len(v) > 0 {
		var w []byte
		w, v = word(v)
		var n T
		if !number(w, &n) {
			return false
		}
		*all = append(*all, n)
	}
	return true
}

func flag(v []byte, b *bool) bool {
	*b = string(v) == "1"
	return *b || string(v) == "0"
}

// unescapeName undoes the two escapes of the name in status: \n and \\.
func unescapeName(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			switch b[i+1] {
			case 'n':
				out = append(out, '\n')
				i++
				continue
			case '\\':
				i++
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}
