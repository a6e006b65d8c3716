package ptrace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
)

// A Thread is a task that is traced.
type Thread struct {
	TID int

	tracer  *Tracer
	last    Stop // how it stopped last
	stopped bool
	gone    bool
	asked   bool // to stop, already
	early   bool // it was seized early
}

// SeizeEarly starts to trace a task that cannot stop yet, because it is frozen, and asks it to stop as soon as it can. Seize
// returns it then.
func (t *Tracer) SeizeEarly(tid int) error {
	th, err := t.Seize(tid)
	if err != nil {
		return err
	}
	if err := th.Interrupt(); err != nil {
		return err
	}
	if t.early == nil {
		t.early = make(map[int]*Thread)
	}
	th.asked, th.early = true, true
	t.early[tid] = th
	return nil
}

// Seize starts to trace a task, which goes on running.
func (t *Tracer) Seize(tid int) (*Thread, error) {
	if th := t.early[tid]; th != nil {
		delete(t.early, tid)
		return th, nil
	}
	if err := t.kernel.Seize(tid, t.options); err != nil {
		return nil, err
	}
	t.held++
	return &Thread{TID: tid, tracer: t}, nil
}

// Adopt makes a Thread of a task that the tracer traces since its creation, because its parent was cloned with
// CLONE_PTRACE or was told to have its children traced.
func (t *Tracer) Adopt(tid int) *Thread {
	t.held++
	return &Thread{TID: tid, tracer: t}
}

// Early reports whether the thread was seized early: what froze it then had a reason why it must not run.
func (th *Thread) Early() bool { return th.early }

// Tracer is the thread's tracer.
func (th *Thread) Tracer() *Tracer { return th.tracer }

// Stopped reports whether the thread is known to be stopped.
func (th *Thread) Stopped() bool { return th.stopped }

// Gone reports whether the thread is known to have ended.
func (th *Thread) Gone() bool { return th.gone }

// Wait waits until the thread stops. It fails with ErrGone when the thread ends, with ErrTimeout when it does not stop,
// and with the context's error when that ends.
//
// Of the end of a first thread the kernel tells only once all others have been waited for, which may be still to come. It is
// looked for in /proc, therefore; the kernel lets go of the thread when the tracer ends.
func (th *Thread) Wait() (Stop, error) { return th.waitFor(patience) }

func (th *Thread) waitFor(limit time.Duration) (Stop, error) {
	return th.waitUntil(time.Now().Add(limit), th.isDead)
}

// isDead reports whether the thread has ended.
func (th *Thread) isDead() bool {
	switch stateIn(fmt.Sprintf("/proc/%d/stat", th.TID)) {
	case 0, 'Z':
		return true
	}
	return false
}

// stateIn returns the state letter that a stat file of /proc tells, 0 where there is no such task and '?' where it cannot be read.
func stateIn(name string) byte {
	data, err := linux.ReadProc(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return 0
	}
	if i := bytes.LastIndexByte(data, ')'); err == nil && i >= 0 && i+2 < len(data) { // it comes behind the name
		return data[i+2]
	}
	return '?'
}

// waitUntil waits for a stop. Where isDead is given, a thread that it tells of is gone, whether or not the kernel has told.
func (th *Thread) waitUntil(deadline time.Time, isDead func() bool) (Stop, error) {
	for try := 0; ; try++ {
		ended := isDead != nil && try >= spins && (try-spins)%4 == 3 && isDead() // before the last look, which tells more
		s, ok, err := th.Poll()
		if err != nil || ok {
			return s, err
		}
		if ended {
			th.gone = true
			return Stop{}, fmt.Errorf("task %d: %w", th.TID, ErrGone)
		}
		if err := th.tracer.pause(try, deadline); err != nil {
			return Stop{}, fmt.Errorf("task %d: %w", th.TID, err)
		}
	}
}

// WaitLong waits like Wait for something that takes longer, and that the end of the context does not cut short: a table of calls
// that is under way.
func (th *Thread) WaitLong() (s Stop, err error) {
	err = th.tracer.WithContext(context.WithoutCancel(th.tracer.ctx), func() error {
		s, err = th.waitUntil(time.Now().Add(longPatience), nil)
		return err
	})
	return s, err
}

// spins is how many looks a wait takes at once. Most stops come within some ten microseconds, less than the kernel takes to wake a
// sleeper by a timer, so the first looks only give way to others.
const spins = 100

// pause is what a wait does between two looks.
func (t *Tracer) pause(try int, deadline time.Time) error {
	if try < spins {
		t.kernel.Pause(0)
		return nil
	}
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if time.Now().After(deadline) {
		return ErrTimeout
	}
	t.kernel.Pause(int64(min(20*time.Microsecond<<min((try-spins)/4, 7), time.Millisecond)))
	return nil
}

// Poll looks whether the thread has stopped.
func (th *Thread) Poll() (Stop, bool, error) {
	if th.gone {
		return Stop{}, false, fmt.Errorf("task %d: %w", th.TID, ErrGone)
	}
	n, status, err := th.tracer.kernel.WaitTracee(th.TID)
	if th.lost(err) {
		th.gone = true
		th.tracer.held--
		return Stop{}, false, fmt.Errorf("task %d: %w", th.TID, ErrGone)
	}
	if err != nil {
		return Stop{}, false, err
	}
	if n == 0 {
		return Stop{}, false, nil
	}
	if ws := unix.WaitStatus(status); !ws.Stopped() {
		th.gone = true
		th.tracer.held--
		return Stop{}, false, fmt.Errorf("task %d: %w (wait status %#x)", th.TID, ErrGone, status)
	}
	th.stopped = true
	th.tracer.stops++
	th.last = parseStop(status)
	return th.last, true, nil
}

// Interrupt asks the thread to stop. What it stops with is for Wait to tell.
func (th *Thread) Interrupt() error {
	if th.asked { // twice would leave a second stop behind
		th.asked = false
		return nil
	}
	return th.tracer.kernel.Interrupt(th.TID)
}

// Cont lets the thread run; sig as for linux.Kernel.Cont.
func (th *Thread) Cont(sig unix.Signal) error {
	return th.resumed(th.tracer.kernel.Cont(th.TID, sig))
}

// ContToSyscall lets the thread run to its next syscall stop; sig as for linux.Kernel.Cont.
func (th *Thread) ContToSyscall(sig unix.Signal) error {
	return th.resumed(th.tracer.kernel.ContToSyscall(th.TID, sig))
}

// Detach lets the thread go; it must be stopped.
func (th *Thread) Detach() error {
	err := th.resumed(th.tracer.kernel.Detach(th.TID, 0))
	if err == nil {
		th.tracer.held--
	}
	return err
}

// Keep lets the thread, which must be stopped, live on when the tracer dies, though it was seized to be killed then.
func (th *Thread) Keep() error {
	return th.tracer.kernel.SetOptions(th.TID, th.tracer.options&^linux.OptExitKill)
}

func (th *Thread) resumed(err error) error {
	if err == nil {
		th.stopped = false
	}
	return err
}

// Settle waits for the stop that Interrupt has asked for, an EventStop, or a GroupStop of a process that job control
// has stopped. The stops that come before it are passed over: a signal that was on its way is given back to the thread.
//
// Each of them may have used up the interrupt: the kernel drops one that is pending when the thread enters any stop
// (kernel/signal.c: ptrace_stop). So it is asked for again.
func (th *Thread) Settle() (Stop, error) { return th.SettleWithin(patience) }

// SettleWithin is Settle for a thread that may take so long to each stop.
func (th *Thread) SettleWithin(limit time.Duration) (Stop, error) {
	for {
		s, err := th.waitFor(limit)
		if err != nil || s.Kind == EventStop || s.Kind == GroupStop {
			return s, err
		}
		if err := th.Interrupt(); err != nil {
			return s, err
		}
		var sig unix.Signal
		if s.Kind == SignalStop {
			sig = s.Signal
		}
		if err := th.Cont(sig); err != nil {
			return s, err
		}
	}
}

// Halt brings the thread to an EventStop or a GroupStop, from wherever it is. From a stop at a system call it executes
// nothing of its own before.
func (th *Thread) Halt() error {
	if th.stopped && (th.last.Kind == EventStop || th.last.Kind == GroupStop) {
		return nil
	}
	if err := th.Interrupt(); err != nil {
		return err
	}
	if th.stopped {
		if err := th.Cont(0); err != nil {
			return err
		}
	}
	_, err := th.Settle()
	return err
}

// Regs reads the general registers.
func (th *Thread) Regs() (Regs, error) { return th.tracer.kernel.Regs(th.TID) }

// SetRegs writes the general registers.
func (th *Thread) SetRegs(regs *Regs) error { return th.tracer.kernel.SetRegs(th.TID, regs) }

// Sigmask reads the set of blocked signals.
func (th *Thread) Sigmask() (uint64, error) { return th.tracer.kernel.Sigmask(th.TID) }

// SetSigmask writes the set of blocked signals.
func (th *Thread) SetSigmask(mask uint64) error { return th.tracer.kernel.SetSigmask(th.TID, mask) }

// XState reads the floating-point and vector state, in the layout of XSAVE. It is valid until the tracer reads that of the next
// thread.
func (th *Thread) XState() ([]byte, error) {
	const usual = 4096
	for t := th.tracer; ; {
		if t.xstate == nil {
			t.xstate = make([]byte, usual)
		}
		n, err := t.kernel.RegSet(th.TID, linux.RegSetXState, t.xstate)
		if err != nil {
			return nil, err
		}
		if n < len(t.xstate) {
			return t.xstate[:n], nil
		}
		t.xstate = make([]byte, 4*len(t.xstate))
	}
}

// SetXState writes the floating-point and vector state.
func (th *Thread) SetXState(state []byte) error {
	return th.tracer.kernel.SetRegSet(th.TID, linux.RegSetXState, state)
}

// Regs are the general registers of a thread.
type Regs = unix.PtraceRegs
