package proc

import (
	"bytes"
	hexbytes "encoding/hex"
	"io"
)

// FDInfo is a file of fdinfo. All descriptors have the first fields; of the others those are there that the kind of file
// has. What kind it is, the link in fd/ tells.
type FDInfo struct {
	Pos   uint64
	Flags uint32 // as open(2) takes them, O_CLOEXEC is the slot's close-on-exec flag
	MntID int
	Ino   uint64 // 0 before 5.14

	Locks     []Lock // POSIX and flock locks and leases that came by this descriptor
	EventFD   *EventFD
	EventPoll []EventPollTarget // of an epoll; nil for other files and for an epoll that watches nothing
	SigMask   *uint64           // of a signalfd; bit 0 is signal 1
	TimerFD   *TimerFD
	Inotify   []InotifyWatch // of an inotify; nil for other files and for an inotify that watches nothing
	PidFD     *PidFD
	Extra     []string // lines that this type has no field for, whole
}

// EventFD is what fdinfo shows of an eventfd.
type EventFD struct {
	Count     uint64
	ID        int  // -1 before 5.2: equal ids are one eventfd
	Semaphore bool // EFD_SEMAPHORE
	// SemaphoreKnown says that the line was there: the kernel shows it since 6.5.
	SemaphoreKnown bool
}

// EventPollTarget is a descriptor that an epoll watches.
type EventPollTarget struct {
	TFD    int // the number when it was added; the file may be closed or another by now
	Events uint32
	Data   uint64
	Pos    int64 // Pos, Ino and Dev say which file it is
	Ino    uint64
	Dev    uint32
}

// Timespec is a time in seconds and nanoseconds.
type Timespec struct {
	Sec  int64
	Nsec int64
}

// TimerFD is what fdinfo shows of a timerfd.
type TimerFD struct {
	ClockID      int
	Ticks        uint64 // expirations not read yet
	SettimeFlags uint32
	Value        Timespec // what is left
	Interval     Timespec
}

// InotifyWatch is a watch of an inotify.
type InotifyWatch struct {
	WD          int
	Ino         uint64
	Dev         uint32 // in the kernel's own form: minor in the low 20 bits
	Mask        uint32
	IgnoredMask uint32
	HandleType  int
	Handle      []byte // nil where the file system has no handles
}

// PidFD is what fdinfo shows of a pidfd.
type PidFD struct {
	PID   int   // in the reader's pid namespace; 0 if it is not there, -1 if the process is gone
	NSPID []int // from the reader's namespace inwards
}

// ParseFDInfo parses a file of fdinfo.
func ParseFDInfo(r io.Reader) (FDInfo, error) {
	var f FDInfo
	l := newLines(r)
	var seen struct{ pos, flags bool }
	for l.next() {
		key, value, ok := cutKey(l.text)
		if !ok {
			f.Extra = append(f.Extra, string(l.text))
			continue
		}
		switch string(key) {
		case "pos":
			ok, seen.pos = number(value, &f.Pos), true
		case "flags":
			ok, seen.flags = octal(value, &f.Flags), true
		case "mnt_id":
			ok = number(value, &f.MntID)
		case "ino":
			ok = number(value, &f.Ino)
		default:
			ok = f.special(string(key), value, l.text)
		}
		if !ok {
			return f, l.bad("bad value")
		}
	}
	if err := l.failed(); err != nil {
		return f, err
	}
	if !seen.pos || !seen.flags {
		return f, l.bad("the file ends without pos and flags")
	}
	return f, nil
}

// special parses a line that only some kinds of files have.
func (f *FDInfo) special(key string, value, line []byte) bool {
	switch key {
	case "lock":
		lock, ok := parseLock(value)
		f.Locks = append(f.Locks, lock)
		return ok
	case "eventfd-count":
		f.eventfd()
		return hex(value, &f.EventFD.Count)
	case "eventfd-id":
		f.eventfd()
		return number(value, &f.EventFD.ID)
	case "eventfd-semaphore":
		f.eventfd()
		f.EventFD.SemaphoreKnown = true
		return flag(value, &f.EventFD.Semaphore)
	case "sigmask":
		f.SigMask = new(uint64)
		return len(value) == 16 && hex(value, f.SigMask)
	case "tfd":
		return f.target(value)
	case "clockid":
		f.timerfd()
		return number(value, &f.TimerFD.ClockID)
	case "ticks":
		f.timerfd()
		return number(value, &f.TimerFD.Ticks)
	case "settime flags":
		f.timerfd()
		return octal(value, &f.TimerFD.SettimeFlags)
	case "it_value":
		f.timerfd()
		return f.TimerFD.Value.parse(value)
	case "it_interval":
		f.timerfd()
		return f.TimerFD.Interval.parse(value)
	case "Pid":
		f.pidfd()
		return number(value, &f.PidFD.PID)
	case "NSpid":
		f.pidfd()
		return list(value, &f.PidFD.NSPID)
	}
	if rest, ok := bytes.CutPrefix(line, []byte("inotify ")); ok {
		return f.watch(rest)
	}
	f.Extra = append(f.Extra, string(line))
	return true
}

func (f *FDInfo) eventfd() {
	if f.EventFD == nil {
		f.EventFD = &EventFD{ID: -1}
	}
}

func (f *FDInfo) timerfd() {
	if f.TimerFD == nil {
		f.TimerFD = new(TimerFD)
	}
}

func (f *FDInfo) pidfd() {
	if f.PidFD == nil {
		f.PidFD = new(PidFD)
	}
}

// parse parses "(12, 345)".
func (t *Timespec) parse(v []byte) bool {
	v, ok1 := bytes.CutPrefix(v, []byte("("))
	v, ok2 := bytes.CutSuffix(v, []byte(")"))
	sec, nsec, ok3 := bytes.Cut(v, []byte(", "))
	return ok1 && ok2 && ok3 && number(sec, &t.Sec) && number(nsec, &t.Nsec) && t.Nsec >= 0 && t.Nsec < 1e9
}

// pairs calls set for each "key:value" of a line; a blank may follow the colon. It reports whether set liked them all and
// all of the keys were there.
func pairs(v []byte, set func(key string, value []byte) (known, ok bool), want int) bool {
	for len(v) > 0 {
		key, rest, ok := bytes.Cut(v, []byte(":"))
		if !ok {
			return false
		}
		var value []byte
		value, v = word(rest)
		known, ok := set(string(key), value)
		if !ok {
			return false
		}
		if known {
			want--
		}
	}
	return want == 0
}

// target parses the rest of "tfd:        5 events: 19 data: 1122  pos:0 ino:40e sdev:10". The last three are there since
// 4.12.
func (f *FDInfo) target(v []byte) bool {
	var t EventPollTarget
	first, rest := word(v)
	if !number(first, &t.TFD) {
		return false
	}
	want := 5
	if !bytes.Contains(rest, []byte("sdev:")) {
		want = 2
	}
	ok := pairs(rest, func(key string, value []byte) (bool, bool) {
		switch key {
		case "events":
			return true, hex(value, &t.Events)
		case "data":
			return true, hex(value, &t.Data)
		case "pos":
			return true, number(value, &t.Pos)
		case "ino":
			return true, hex(value, &t.Ino)
		case "sdev":
			return true, hex(value, &t.Dev)
		}
		return false, false
	}, want)
	f.EventPoll = append(f.EventPoll, t)
	return ok
}

// watch parses the rest of "inotify wd:1 ino:98c56e sdev:fe00000 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1
// f_handle:6ec5980064c346c4".
func (f *FDInfo) watch(v []byte) bool {
	var w InotifyWatch
	size := -1
	want := 8
	if !bytes.Contains(v, []byte("fhandle-bytes:")) {
		want = 5
	}
	ok := pairs(v, func(key string, value []byte) (bool, bool) {
		switch key {
		case "wd":
			return true, hex(value, &w.WD)
		case "ino":
			return true, hex(value, &w.Ino)
		case "sdev":
			return true, hex(value, &w.Dev)
		case "mask":
			return true, hex(value, &w.Mask)
		case "ignored_mask":
			return true, hex(value, &w.IgnoredMask)
		case "fhandle-bytes":
			return true, hex(value, &size)
		case "fhandle-type":
			return true, hex(value, &w.HandleType)
		case "f_handle":
			var err error
			w.Handle, err = hexbytes.DecodeString(string(value))
			return true, err == nil
		}
		return false, false
	}, want)
	f.Inotify = append(f.Inotify, w)
	return ok && (size == -1 || size == len(w.Handle))
}
