//go:build amd64

package signals

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
)

const (
	signals    = 64
	actionSize = 32 // of struct kernel_sigaction
)

// CollectStopped reads masks and queues, before the process is entered. The snapshot's threads are those of the process.
func CollectStopped(k *linux.Kernel, p *remote.Process, s *snapshot.Task) (err error) {
	for i, th := range p.Threads {
		s.Threads[i].Mask = th.Mask
		if s.Threads[i].Pending, err = queue(k, th.TID, false); err != nil {
			return err
		}
	}
	s.Pending, err = queue(k, p.Threads[0].TID, true)
	return err
}

// Collect asks for the dispositions, which only the process itself can tell.
func Collect(p *remote.Process, s *snapshot.Task) error {
	at, _ := p.Data()
	calls := make([]remote.Call, 0, signals)
	for n := range uint64(signals) {
		calls = append(calls, remote.NewCall(unix.SYS_RT_SIGACTION, n+1, 0, at+n*actionSize, 8))
	}
	if err := errors.Join(p.Run(calls), remote.Must(calls)); err != nil {
		return err
	}
	b := make([]byte, signals*actionSize)
	if err := p.Read(at, b); err != nil {
		return err
	}
	le := binary.LittleEndian
	for n := range s.Actions {
		a := b[n*actionSize:]
		s.Actions[n] = snapshot.Action{Handler: le.Uint64(a), Flags: le.Uint64(a[8:]), Restorer: le.Uint64(a[16:]), Mask: le.Uint64(a[24:])}
	}
	return nil
}

func queue(k *linux.Kernel, tid int, shared bool) (all []snapshot.Siginfo, err error) {
	for {
		some, err := k.PeekSiginfo(tid, shared, len(all))
		if err != nil || len(some) == 0 {
			return all, err
		}
		for _, s := range some {
			all = append(all, s)
		}
	}
}

// Encode puts dispositions and the queue of the process into its core entry.
func Encode(s *snapshot.Task, c *entry.TaskCore) {
	const sigKill, sigStop = 9, 19 // have none
	for n, a := range s.Actions {
		if n+1 == sigKill || n+1 == sigStop {
			continue
		}
		c.Sigactions = append(c.Sigactions, entry.SA{Sigaction: a.Handler, Flags: a.Flags, Restorer: a.Restorer, Mask: a.Mask, CompatSigaction: new(false)})
	}
	c.BlkSigset = s.Threads[0].Mask
	c.SignalsS = encodeQueue(s.Pending)
}

// EncodeThread puts mask and queue of a thread into its core entry.
func EncodeThread(s *snapshot.Thread, c *entry.ThreadCore) {
	c.BlkSigset = &s.Mask
	c.SignalsP = encodeQueue(s.Pending)
}

func encodeQueue(q []snapshot.Siginfo) *entry.SignalQueue {
	e := &entry.SignalQueue{}
	for i := range q {
		e.Signals = append(e.Signals, entry.Siginfo{Siginfo: q[i][:]})
	}
	return e
}
