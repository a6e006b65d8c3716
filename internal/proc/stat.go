package proc

import (
	"bytes"
	"fmt"
)

// Stat is the line of stat, fields as in proc(5). Addresses are 0 for a reader that may not trace the process.
type Stat struct {
	PID         int
	Comm        string // as it is, at most 15 bytes for a process; kernel threads may have more
	State       byte   // R running, S sleeping, D in disk sleep, T stopped, t traced, Z zombie, X dead, I idle, P parked
	PPID        int
	PGRP        int
	Session     int
	TTYNr       int // device number of the controlling terminal, 0 for none
	TPGID       int // foreground group of the terminal, -1 for none
	Flags       uint32
	MinFlt      uint64
	CMinFlt     uint64
	MajFlt      uint64
	CMajFlt     uint64
	UTime       uint64 // in clock ticks, as all times here
	STime       uint64
	CUTime      int64
	CSTime      int64
	Priority    int
	Nice        int
	NumThreads  int
	ItRealValue int64
	StartTime   uint64 // after boot
	VSize       uint64 // in bytes
	RSS         int64  // in pages
	RSSLim      uint64
	StartCode   uint64
	EndCode     uint64
	StartStack  uint64
	KstkESP     uint64
	KstkEIP     uint64
	Signal      uint64 // the low 32 signals; status has all
	Blocked     uint64
	SigIgnore   uint64
	SigCatch    uint64
	WChan       uint64
	NSwap       uint64
	CNSwap      uint64
	ExitSignal  int // what the parent gets, -1 for threads
	Processor   int
	RTPriority  uint32
	Policy      uint32
	BlkIOTicks  uint64
	GuestTime   uint64
	CGuestTime  int64
	StartData   uint64
	EndData     uint64
	StartBrk    uint64
	ArgStart    uint64
	ArgEnd      uint64
	EnvStart    uint64
	EnvEnd      uint64
	ExitCode    int // as wait(2) gives it

	Extra []string // fields that the package does not know
}

// ParseStat parses stat.
func ParseStat(b []byte) (Stat, error) {
	var s Stat
	bad := func(format string, args ...any) (Stat, error) {
		return s, &SyntaxError{Text: string(b), What: fmt.Sprintf(format, args...)}
	}
	line, ended := bytes.CutSuffix(b, []byte("\n"))
	if !ended {
		return bad("line is cut off")
	}
	// The name may have any byte in it, blanks and parentheses too: it ends at the last parenthesis.
	open, shut := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 2 || shut < open || line[open-1] != ' ' || !number(line[:open-1], &s.PID) {
		return bad("no pid and name")
	}
	s.Comm = string(line[open+1 : shut])
	state, rest, more := bytes.Cut(bytes.TrimPrefix(line[shut+1:], []byte(" ")), []byte(" "))
	if len(state) != 1 {
		return bad("no state")
	}
	s.State = state[0]
	for i, set := range [...]func([]byte) bool{
		to(&s.PPID), to(&s.PGRP), to(&s.Session), to(&s.TTYNr), to(&s.TPGID), to(&s.Flags),
		to(&s.MinFlt), to(&s.CMinFlt), to(&s.MajFlt), to(&s.CMajFlt),
		to(&s.UTime), to(&s.STime), to(&s.CUTime), to(&s.CSTime),
		to(&s.Priority), to(&s.Nice), to(&s.NumThreads), to(&s.ItRealValue), to(&s.StartTime),
		to(&s.VSize), to(&s.RSS), to(&s.RSSLim), to(&s.StartCode), to(&s.EndCode), to(&s.StartStack), to(&s.KstkESP), to(&s.KstkEIP),
		to(&s.Signal), to(&s.Blocked), to(&s.SigIgnore), to(&s.SigCatch), to(&s.WChan), to(&s.NSwap), to(&s.CNSwap),
		to(&s.ExitSignal), to(&s.Processor), to(&s.RTPriority), to(&s.Policy), to(&s.BlkIOTicks), to(&s.GuestTime), to(&s.CGuestTime),
		to(&s.StartData), to(&s.EndData), to(&s.StartBrk), to(&s.ArgStart), to(&s.ArgEnd), to(&s.EnvStart), to(&s.EnvEnd), to(&s.ExitCode),
	} {
		if !more {
			return bad("only %d fields", i+3)
		}
		var field []byte
		if field, rest, more = bytes.Cut(rest, []byte(" ")); !set(field) {
			return bad("field %d is no number", i+4)
		}
	}
	for more {
		var field []byte
		field, rest, more = bytes.Cut(rest, []byte(" "))
		s.Extra = append(s.Extra, string(field))
	}
	return s, nil
}

func to[T integer](v *T) func([]byte) bool {
	return func(b []byte) bool { return number(b, v) }
}
