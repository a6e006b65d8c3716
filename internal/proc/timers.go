package proc

import (
	"bytes"
	"io"
)

// A Timer is a POSIX timer of timers. Its times are not there: timer_gettime in the process tells them.
type Timer struct {
	ID      int
	Signal  int
	Value   uint64 // sigev_value
	Notify  string // "signal", "none" or "thread"
	Thread  bool   // SIGEV_THREAD_ID: PID is a thread
	PID     int    // who gets the signal, in the reader's pid namespace
	ClockID int
	Extra   []Field // lines that this type has no field for
}

// ParseTimers parses timers.
func ParseTimers(r io.Reader) ([]Timer, error) {
	l := newLines(r)
	var all []Timer
	lacking := 0 // lines of the present timer that have not come
	for l.next() {
		key, value, ok := cutKey(l.text)
		if !ok {
			return nil, l.bad("no colon")
		}
		if string(key) == "ID" {
			if lacking != 0 {
				return nil, l.bad("the timer before is not whole")
			}
			all = append(all, Timer{})
			lacking = 4
		}
		if len(all) == 0 {
			return nil, l.bad("no ID before it")
		}
		t := &all[len(all)-1]
		lacking--
		switch string(key) {
		case "ID":
			ok = number(value, &t.ID)
		case "signal":
			sig, val, found := bytes.Cut(value, []byte("/"))
			ok = found && number(sig, &t.Signal) && hex(val, &t.Value)
		case "notify":
			ok = t.notify(value)
		case "ClockID":
			ok = number(value, &t.ClockID)
		default:
			lacking++
			t.Extra = append(t.Extra, Field{string(key), string(value)})
		}
		if !ok {
			return nil, l.bad("bad value")
		}
	}
	if err := l.failed(); err != nil {
		return nil, err
	}
	if lacking != 0 {
		return nil, l.bad("the last timer is not whole")
	}
	return all, nil
}

// notify parses "signal/pid.42" or "signal/tid.43".
func (t *Timer) notify(v []byte) bool {
	how, who, ok1 := bytes.Cut(v, []byte("/"))
	kind, pid, ok2 := bytes.Cut(who, []byte("."))
	t.Notify, t.Thread = string(how), string(kind) == "tid"
	return ok1 && ok2 && (t.Thread || string(kind) == "pid") && number(pid, &t.PID)
}
