//go:build amd64

package signals

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect takes masks and queues, and asks for the dispositions.
func Collect(t *collect.Tree) error {
	var last *snapshot.Actions
	for p := range t.Alive() {
		status, err := p.Status()
		if err != nil {
			return err
		}
		if p.Task.Pending, err = queue(t, p.Threads[0], true, status.ShdPnd); err != nil {
			return err
		}
		for _, th := range p.Threads {
			th.Snapshot.Mask = snapshot.SigSet(th.Remote.Mask)
			status, err := th.Status()
			if err != nil {
				return err
			}
			if th.Snapshot.Pending, err = queue(t, th, false, status.SigPnd); err != nil {
				return err
			}
		}
		if p.Handlers {
			h := &snapshot.Handlers{ID: p.Task.Handlers}
			t.Snapshot.Handlers = append(t.Snapshot.Handlers, h)
			p.Ask(func(b *collect.Batch) { actions(b, h, &last) })
		}
	}
	return nil
}

// queue reads a queue. A signal that is pending and has no entry there, as there was no room for one, gets one: the kernel
// would give its taker the same.
func queue(t *collect.Tree, th *collect.Thread, shared bool, pending uint64) ([]snapshot.Siginfo, error) {
	if pending == 0 {
		return nil, nil
	}
	var all []snapshot.Siginfo
	for {
		some, err := t.Kernel.PeekSiginfo(th.Remote.TID, shared, len(all))
		if err != nil {
			return nil, err
		}
		if len(some) == 0 {
			break
		}
		for _, s := range some {
			all = append(all, snapshot.Siginfo(s))
		}
	}
	for i := range all {
		pending &^= 1 << (all[i].Signal() - 1)
	}
	for sig := 1; sig <= snapshot.NumSignals; sig++ {
		if pending>>(sig-1)&1 != 0 && sig != sigkill && sig != sigstop {
			var s snapshot.Siginfo
			s[0] = byte(sig)
			all = append(all, s)
		}
	}
	return all, nil
}

// actions asks for the dispositions. Where they are the last, they are not kept once more.
func actions(b *collect.Batch, h *snapshot.Handlers, last **snapshot.Actions) {
	const size = 32 // struct kernel_sigaction: handler, flags, restorer, mask
	room := b.Room(size * snapshot.NumSignals)
	var call collect.CallID // the last
	for i := range snapshot.NumSignals {
		call = b.Call(unix.SYS_RT_SIGACTION, uint64(i+1), 0, room+uint64(i)*size, 8)
	}
	b.Then(func(r *collect.Results) error {
		var all snapshot.Actions
		data := r.Data(room, size*snapshot.NumSignals)
		for i := range all {
			if _, err := r.Value(call - collect.CallID(len(all)-1-i)); err != nil {
				return err
			}
			if i+1 == sigkill || i+1 == sigstop {
				continue
			}
			b := data[i*size:]
			all[i] = snapshot.Action{
				Handler: binary.LittleEndian.Uint64(b), Flags: binary.LittleEndian.Uint64(b[8:]),
				Restorer: binary.LittleEndian.Uint64(b[16:]), Mask: snapshot.SigSet(binary.LittleEndian.Uint64(b[24:])),
			}
		}
		h.Actions = shared(&all, last)
		return nil
	})
}
