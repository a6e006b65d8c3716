// Package sched is the state "how threads are scheduled": policy, nice value, realtime priority, processors, I/O priority and
// the slack of timers. In images it is thread_core of core-TID.img; what CRIU does not save (processors, I/O priority, slack)
// is in an extension field there.
//
//   - Collect: sched_getattr, getpriority, sched_getaffinity, ioprio_get, /proc/PID/timerslack_ns; all from outside.
//   - Apply from outside, before the credentials are taken away. Processors that this machine does not have are left
//     out; a set of which none is left is no reason to fail.
package sched

import (
	"encoding/binary"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// Scheduling policies, as in the kernel's sched.h.
const (
	other       = 0
	fifo        = 1
	rr          = 2
	batch       = 3
	idle        = 5
	deadline    = 6
	resetOnFork = 1 << 30
)

// Fields of the extension.
const (
	extAffinity   = 1
	extIOPrio     = 2
	extTimerSlack = 3
)

// Encode writes how threads are scheduled.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for t := range to.Threads(from) {
		s := &t.Scheduling
		if s.Policy&^resetOnFork == deadline {
			r.Unsupported(t.Image, "it is scheduled by deadline, which images have no place for")
		}
		e := t.Core.ThreadCore
		e.SchedNice, e.SchedPolicy = &s.Nice, &s.Policy
		if realtime(s.Policy) {
			e.SchedPrio = &s.Priority
		}
		var ext images.Extension
		if s.Affinity != nil {
			var b []byte
			for _, w := range s.Affinity {
				b = binary.LittleEndian.AppendUint64(b, w)
			}
			ext.SetBytes(extAffinity, b)
		}
		if s.IOPrio != nil {
			ext.SetNumber(extIOPrio, uint64(*s.IOPrio))
		}
		if t.TimerSlack != nil {
			ext.SetNumber(extTimerSlack, *t.TimerSlack)
		}
		e.Unknown = ext.AppendTo(e.Unknown)
	}
}

func realtime(policy uint32) bool {
	p := policy &^ resetOnFork
	return p == fifo || p == rr
}

// Decode reads how threads are scheduled.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for t := range from.Threads(to) {
		e := t.Core.ThreadCore
		s := snapshot.Scheduling{Policy: e.GetSchedPolicy(), Nice: e.GetSchedNice()}
		if s.Nice < -20 || s.Nice > 19 {
			r.Damaged(t.Image, "nice value %d", s.Nice)
		}
		switch s.Policy &^ resetOnFork {
		case other, batch, idle:
		case fifo, rr: // the others have none
			s.Priority = e.GetSchedPrio()
			if s.Priority < 1 || s.Priority > 99 {
				r.Damaged(t.Image, "realtime priority %d", s.Priority)
			}
		case deadline:
			r.Unsupported(t.Image, "scheduling by deadline")
		default:
			r.Unsupported(t.Image, "scheduling policy %d", s.Policy)
		}
		ext, err := images.ParseExtension(e.Unknown)
		if err != nil {
			r.Damaged(t.Image, "the extension of %s: %v", e.Schema(), err)
		}
		if b, ok := ext.Bytes(extAffinity); ok {
			if len(b)%8 != 0 || len(b) > 8192 {
				r.Damaged(t.Image, "a set of processors of %d bytes", len(b))
			} else {
				s.Affinity = make([]uint64, 0, len(b)/8)
				for ; len(b) > 0; b = b[8:] {
					s.Affinity = append(s.Affinity, binary.LittleEndian.Uint64(b))
				}
			}
		}
		if n := ext.Number(extIOPrio); n != nil {
			s.IOPrio = new(uint32(*n))
		}
		t.TimerSlack = ext.Number(extTimerSlack)
		t.Scheduling = s
	}
}
