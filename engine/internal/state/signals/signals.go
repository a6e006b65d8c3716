// Package signals is the state "signals": dispositions, masks, and those that wait, for the process or for a thread. In images
// it is in core-TID.img.
//
//   - Collect: rt_sigaction for all signals in one batch; the mask with PTRACE_GETSIGMASK before anything is run in
//     the thread; queues with PTRACE_PEEKSIGINFO. A signal that arrives while the thread is being stopped is put back first.
//   - Apply: dispositions after everything that raises signals by itself (children that die), and after SIGCHLD has
//     been set to SIG_DFL for a moment, which flushes what they raised; queues with rt_sigqueueinfo and rt_tgsigqueueinfo from the
//     task itself, in the order of the list; what concerns SIGTRAP, by which tables of calls end, when none is run any more; the
//     mask is part of what is set last, with the registers.
package signals

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Two signals whose disposition cannot be changed; images leave them out.
const (
	sigkill = 9
	sigstop = 19
)

// inImage is how many dispositions an image has.
const inImage = snapshot.NumSignals - 2

// maxQueued bounds a queue; the kernel's is RLIMIT_SIGPENDING.
const maxQueued = 1 << 20

// Encode writes dispositions, masks and queues.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	handlers := make(map[snapshot.ObjectID]*snapshot.Handlers)
	for _, h := range from.Handlers {
		handlers[h.ID] = h
	}
	last := &to.Actions
	for p, t := range to.Alive(from) {
		tc := p.TC()
		tc.SignalsS = encodeQueue(t.Pending)
		h := handlers[t.Handlers]
		if h == nil {
			r.Unsupported(p.Core(), "handlers %d are not in the snapshot", t.Handlers)
			continue
		}
		if h.Actions != last.Of {
			last.Of, last.As = h.Actions, encodeActions(h.Actions)
		}
		tc.Sigactions = last.As
	}
	for t := range to.Threads(from) {
		if t.Leader {
			t.Core.TC.BlkSigset = uint64(t.Mask)
		} else {
			t.Core.ThreadCore.BlkSigset = new(uint64(t.Mask))
		}
		t.Core.ThreadCore.SignalsP = encodeQueue(t.Thread.Pending)
	}
}

func encodeActions(all *snapshot.Actions) []entry.SA {
	list := make([]entry.SA, 0, inImage)
	for i := range all {
		a := &all[i]
		if i+1 == sigkill || i+1 == sigstop {
			continue
		}
		list = append(list, entry.SA{
			Sigaction: a.Handler, Flags: a.Flags, Restorer: a.Restorer, Mask: uint64(a.Mask), CompatSigaction: &a.Compat,
		})
	}
	return list
}

// shared returns actions: the last, where they are the same.
func shared(all *snapshot.Actions, last **snapshot.Actions) *snapshot.Actions {
	if *last == nil || **last != *all {
		fresh := *all
		*last = &fresh
	}
	return *last
}

func encodeQueue(q []snapshot.Siginfo) *entry.SignalQueue {
	e := &entry.SignalQueue{}
	for _, s := range q {
		e.Signals = append(e.Signals, entry.Siginfo{Siginfo: append([]byte{}, s[:]...)})
	}
	return e
}

// Decode reads dispositions, masks and queues.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	handlers := make(map[snapshot.ObjectID]*snapshot.Handlers)
	var last *snapshot.Actions
	for p, t := range from.Alive(to) {
		tc, where := p.TC(), p.Core()
		t.Pending = decodeQueue(where, tc.SignalsS, r)
		h := decodeActions(where, tc.Sigactions, t, &last, r)
		if h == nil {
			continue
		}
		if other := handlers[t.Handlers]; other == nil {
			handlers[t.Handlers] = h
			to.Handlers = append(to.Handlers, h)
		} else if *other.Actions != *h.Actions {
			r.Damaged(where, "its signal handlers are said to be shared, and differ")
		}
	}
	for t := range from.Threads(to) {
		e := t.Core.ThreadCore
		switch {
		case e.BlkSigset != nil:
			t.Mask = snapshot.SigSet(*e.BlkSigset)
		case t.Core.TC != nil:
			t.Mask = snapshot.SigSet(t.Core.TC.BlkSigset)
		default:
			r.Damaged(t.Image, "the signal mask is missing")
		}
		t.Thread.Pending = decodeQueue(t.Image, e.SignalsP, r)
	}
}

func decodeActions(where string, actions []entry.SA, t *snapshot.Task, last **snapshot.Actions, r *images.Report) *snapshot.Handlers {
	if len(actions) != inImage {
		r.Unsupported(where, "%d signal dispositions, want %d; CRIU before 2.10 had them elsewhere", len(actions), inImage)
		return nil
	}
	var all snapshot.Actions
	for sig := 1; sig <= snapshot.NumSignals; sig++ {
		if sig == sigkill || sig == sigstop {
			continue
		}
		a := &actions[0]
		actions = actions[1:]
		r.Unknown(where, a, a.Unknown)
		if a.GetCompatSigaction() {
			r.Unsupported(where, "the handler of signal %d is of 32-bit code", sig)
		}
		all[sig-1] = snapshot.Action{
			Handler: a.Sigaction, Flags: a.Flags, Restorer: a.Restorer, Mask: snapshot.SigSet(a.Mask), Compat: a.GetCompatSigaction(),
		}
	}
	return &snapshot.Handlers{ID: t.Handlers, Actions: shared(&all, last)}
}

func decodeQueue(where string, e *entry.SignalQueue, r *images.Report) []snapshot.Siginfo {
	if e == nil || len(e.Signals) == 0 {
		return nil
	}
	r.Unknown(where, e, e.Unknown)
	if len(e.Signals) > maxQueued {
		r.Damaged(where, "%d signals are queued, at most %d are taken", len(e.Signals), maxQueued)
		return nil
	}
	q := make([]snapshot.Siginfo, len(e.Signals))
	for i, s := range e.Signals {
		if len(s.Siginfo) != snapshot.SiginfoSize {
			r.Damaged(where, "queued signal %d has %d bytes, want %d", i, len(s.Siginfo), snapshot.SiginfoSize)
			continue
		}
		copy(q[i][:], s.Siginfo)
		if sig := q[i].Signal(); sig < 1 || sig > snapshot.NumSignals {
			r.Damaged(where, "queued signal %d has the number %d", i, sig)
		}
	}
	return q
}
