//go:build amd64

package signals

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Decode reads dispositions and the queue of a process from its core entry.
func Decode(c *entry.TaskCore, s *snapshot.Task) error {
	n := 1
	for i := range c.Sigactions {
		for n == 9 || n == 19 { // SIGKILL and SIGSTOP have none
			n++
		}
		if n > signals {
			return fmt.Errorf("core of process %d: %d signal handlers", s.PID, len(c.Sigactions))
		}
		a := &c.Sigactions[i]
		s.Actions[n-1] = snapshot.Action{Handler: a.Sigaction, Flags: a.Flags, Restorer: a.Restorer, Mask: a.Mask}
		n++
	}
	s.Pending = decodeQueue(c.SignalsS)
	return nil
}

// DecodeThread reads mask and queue of a thread. The leader's mask may be in the entry of the process only.
func DecodeThread(c *entry.Core, s *snapshot.Thread) {
	if c.TC != nil {
		s.Mask = c.TC.BlkSigset
	}
	if c.ThreadCore.BlkSigset != nil {
		s.Mask = *c.ThreadCore.BlkSigset
	}
	s.Pending = decodeQueue(c.ThreadCore.SignalsP)
}

func decodeQueue(e *entry.SignalQueue) (q []snapshot.Siginfo) {
	if e == nil {
		return nil
	}
	for i := range e.Signals {
		var s snapshot.Siginfo
		copy(s[:], e.Signals[i].Siginfo)
		q = append(q, s)
	}
	return q
}

// Apply sets the dispositions, and sends the process what it had not got yet. All signals are blocked.
func Apply(p *remote.Process, s *snapshot.Task) error {
	a := p.NewArena()
	for n, act := range s.Actions {
		if act != (snapshot.Action{}) {
			a.Call(unix.SYS_RT_SIGACTION, uint64(n+1), a.Words(act.Handler, act.Flags, act.Restorer, act.Mask), 0, 8)
		}
	}
	for i := range s.Pending {
		a.Call(unix.SYS_RT_SIGQUEUEINFO, uint64(p.PID), signo(&s.Pending[i]), a.Put(s.Pending[i][:]))
	}
	return a.Run(p.Threads[0])
}

// ApplyThread sends a thread what it had not got yet.
func ApplyThread(p *remote.Process, th *remote.Thread, s *snapshot.Thread) error {
	a := p.NewArena()
	for i := range s.Pending {
		a.Call(unix.SYS_RT_TGSIGQUEUEINFO, uint64(p.PID), uint64(th.TID), signo(&s.Pending[i]), a.Put(s.Pending[i][:]))
	}
	return a.Run(th)
}

func signo(s *snapshot.Siginfo) uint64 { return uint64(binary.LittleEndian.Uint32(s[:])) }
