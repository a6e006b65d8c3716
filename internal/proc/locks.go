package proc

import (
	"bytes"
	"io"
	"math"
)

// A Lock is a file lock, as in /proc/locks and on the lock lines of fdinfo.
type Lock struct {
	ID      int
	Blocked bool   // waits for the lock before it
	Kind    string // POSIX, OFDLCK, FLOCK, LEASE, DELEG, ACCESS
	Mode    string // ADVISORY, MANDATORY; ACTIVE, BREAKING or BREAKER of a lease
	Type    string // READ, WRITE, UNLCK
	PID     int    // -1 for OFDLCK, which belong to no process
	Major   uint32 // the device; all zero for a file that is gone
	Minor   uint32
	Inode   uint64
	Start   int64
	End     int64 // math.MaxInt64 for EOF
}

// ParseLocks parses /proc/locks.
func ParseLocks(r io.Reader) ([]Lock, error) {
	l := newLines(r)
	var all []Lock
	for l.next() {
		lock, ok := parseLock(l.text)
		if !ok {
			return nil, l.bad("no lock")
		}
		all = append(all, lock)
	}
	return all, l.failed()
}

// parseLock parses "1: -> POSIX  ADVISORY  WRITE 42 fe:00:10012014 0 EOF".
func parseLock(b []byte) (l Lock, ok bool) {
	id, b, ok := bytes.Cut(b, []byte(":"))
	if !ok || !number(id, &l.ID) {
		return l, false
	}
	var w []byte
	if w, b = word(b); string(w) == "->" {
		l.Blocked = true
		w, b = word(b)
	}
	l.Kind = string(w)
	w, b = word(b)
	l.Mode = string(w)
	w, b = word(b)
	l.Type = string(w)
	w, b = word(b)
	if l.Kind == "" || l.Mode == "" || l.Type == "" || !number(w, &l.PID) {
		return l, false
	}
	w, b = word(b)
	if string(w) != "<none>:0" {
		dev := bytes.Split(w, []byte(":"))
		if len(dev) != 3 || !hex(dev[0], &l.Major) || !hex(dev[1], &l.Minor) || !number(dev[2], &l.Inode) {
			return l, false
		}
	}
	w, b = word(b)
	if !number(w, &l.Start) {
		return l, false
	}
	w, b = word(b)
	if string(w) == "EOF" {
		l.End = math.MaxInt64
	} else if !number(w, &l.End) {
		return l, false
	}
	return l, len(b) == 0
}
