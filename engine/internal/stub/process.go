//go:build amd64

package stub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/remote"
)

// A Call is a system call for a process to make.
type Call = remote.Call

// NewCall returns a call with some arguments, the others being 0.
func NewCall(nr uint32, args ...uint64) Call { return remote.NewCall(nr, args...) }

// A Process is a process that is being made. All its threads are stopped whenever none of its methods runs, but
// for what Begin began.
type Process struct {
	PID     int
	Threads []*Thread // the first has the number of the process

	tracer *ptrace.Tracer
	layout *Layout
	led    bool        // the first thread has exited
	base   ptrace.Regs // segment registers and flags that tables run with
}

// A Thread is a thread of a Process.
type Thread struct {
	*ptrace.Thread
	p *Process

	regs   ptrace.Regs // to go on with, once Become has said so
	mask   uint64
	xstate []byte
	become bool
}

// Layout is what the process has in common with all others.
func (p *Process) Layout() *Layout { return p.layout }

// Tracer is who traces the process.
func (p *Process) Tracer() *ptrace.Tracer { return p.tracer }

// Arguments is the address of the room for arguments of calls, ArgumentRoom bytes.
func (p *Process) Arguments() uint64 { return p.layout.Area.Start + argumentAt }

// Read reads the process's memory.
func (p *Process) Read(addr uint64, buf []byte) error {
	return p.tracer.Kernel().ReadMemory(p.Threads[0].TID, addr, buf)
}

// Write writes the process's memory, as far as the process itself could.
func (p *Process) Write(addr uint64, buf []byte) error {
	return p.tracer.Kernel().WriteMemory(p.Threads[0].TID, addr, buf)
}

// Force writes memory that the process itself may not write.
func (p *Process) Force(addr uint64, buf []byte) error {
	return p.tracer.Kernel().ForceMemory(p.Threads[0].TID, addr, buf)
}

// Run lets the first thread make the calls, one after the other, whatever their results, which are in the calls afterwards.
// Calls that fail are no error here.
func (p *Process) Run(calls []Call) error { return p.Threads[0].Run(calls) }

// Run lets the thread make the calls, as Process.Run does.
func (th *Thread) Run(calls []Call) error {
	for batch := range slices.Chunk(calls, tableRoom) {
		if err := th.Tracer().Context().Err(); err != nil {
			return err
		}
		if err := th.table(batch); err != nil {
			return fmt.Errorf("task %d: %w", th.TID, err)
		}
	}
	return nil
}

func (th *Thread) table(calls []Call) error {
	if err := th.begin(calls); err != nil {
		return err
	}
	return th.end(calls)
}

// Begin lets the first thread make calls, 1,024 at most, and does not wait: it is the one method after which a thread runs. End has
// to come next.
func (p *Process) Begin(calls []Call) error {
	if len(calls) > tableRoom {
		return fmt.Errorf("process %d: %d calls at once, where %d are possible", p.PID, len(calls), tableRoom)
	}
	if err := p.Threads[0].begin(calls); err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	return nil
}

// End waits until the calls that were begun are made, whose results are in them afterwards.
func (p *Process) End(calls []Call) error {
	if err := p.Threads[0].end(calls); err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	return nil
}

func (th *Thread) begin(calls []Call) error {
	regs := th.tableRegs(th.p.layout.Area.Start+codeAt, th.p.layout.Area.Start+tableAt, len(calls))
	if err := th.prepare(calls, &regs); err != nil {
		return err
	}
	return th.Cont(0)
}

func (th *Thread) end(calls []Call) error {
	if err := th.trap(); err != nil {
		return err
	}
	size := len(calls) * entrySize
	b := slices.Grow(th.p.layout.room[:0], size)[:size]
	th.p.layout.room = b
	if err := th.p.Read(th.p.layout.Area.Start+tableAt, b); err != nil {
		return err
	}
	for i := range calls {
		calls[i].Ret = binary.LittleEndian.Uint64(b[i*entrySize+56:])
	}
	return nil
}

// prepare writes a table, and sets the registers that run it.
func (th *Thread) prepare(calls []Call, regs *ptrace.Regs) error {
	b := th.p.layout.room[:0]
	for i := range calls {
		b = binary.LittleEndian.AppendUint64(b, uint64(calls[i].Nr))
		for _, a := range calls[i].Args {
			b = binary.LittleEndian.AppendUint64(b, a)
		}
		b = binary.LittleEndian.AppendUint64(b, 0)
	}
	th.p.layout.room = b
	if err := th.p.Write(th.p.layout.Area.Start+tableAt, b); err != nil {
		return err
	}
	return th.SetRegs(regs)
}

// trap waits for the int3 at the end of a table.
func (th *Thread) trap() error {
	for {
		s, err := th.WaitLong()
		switch {
		case err != nil:
			return err
		case s.Kind == ptrace.SignalStop && s.Signal == unix.SIGTRAP:
			return nil
		case s.Kind == ptrace.SignalStop && s.Signal != unix.SIGSTOP:
			// All but SIGTRAP are blocked, so the processor itself has raised it.
			return fmt.Errorf("%v in a process that is being made", s.Signal)
		}
		// Somebody has sent it a signal to stop, perhaps; it stops when it is made, if it is to.
		if err := th.Cont(0); err != nil {
			return err
		}
	}
}

// Become says with what a thread goes on when it is let go.
func (th *Thread) Become(regs ptrace.Regs, mask uint64, xstate []byte) {
	th.regs, th.mask, th.xstate, th.become = regs, mask, xstate, true
}

// Finish makes the calls that are given, by way of an instruction at an address outside of the area, unmaps the area if nobody
// else needs it, and gives the threads what Become has said. They stay stopped.
func (p *Process) Finish(syscallAt uint64, unmap bool, calls []Call) error {
	first := p.Threads[0]
	if area := p.layout.Area; unmap {
		calls = append(slices.Clip(calls), NewCall(unix.SYS_MUNMAP, area.Start, area.Len()))
	}
	for i := range calls {
		if err := first.single(syscallAt, &calls[i]); err != nil {
			return err
		}
		if err := calls[i].Err(); err != nil {
			return fmt.Errorf("process %d: last system call %d: %w", p.PID, calls[i].Nr, err)
		}
	}
	for _, th := range p.Threads {
		if !th.become {
			return fmt.Errorf("task %d: nobody has said what it goes on with", th.TID)
		}
		if err := errors.Join(th.SetXState(th.xstate), th.SetRegs(&th.regs), th.SetSigmask(th.mask)); err != nil {
			return err
		}
		th.xstate = nil
	}
	return nil
}

// single makes one call between two syscall stops.
func (th *Thread) single(at uint64, c *Call) error {
	regs := th.callRegs(at, c)
	if err := th.SetRegs(&regs); err != nil {
		return err
	}
	for stops := 0; stops < 2; {
		if err := th.ContToSyscall(0); err != nil {
			return err
		}
		s, err := th.Wait()
		if err != nil {
			return err
		}
		switch s.Kind {
		case ptrace.SyscallStop:
			stops++
		case ptrace.EventStop, ptrace.GroupStop:
		case ptrace.SignalStop:
			if s.Signal != unix.SIGSTOP {
				return fmt.Errorf("task %d: %v in a process that is being made", th.TID, s)
			}
		default:
			return fmt.Errorf("task %d: %v in a process that is being made", th.TID, s)
		}
	}
	regs, err := th.Regs()
	c.Ret = callResult(&regs)
	return err
}

// NearlyKeep prepares Keep: it is left to the last thread to die, and so to kill all others with it, if we should.
func (p *Process) NearlyKeep() error {
	var errs []error
	for _, th := range p.Threads[:len(p.Threads)-1] {
		errs = append(errs, th.Keep())
	}
	return errors.Join(errs...)
}

// Keep lets the process live though we should die from now on. It is a single call, after which there is the whole process.
func (p *Process) Keep() error { return p.Threads[len(p.Threads)-1].Keep() }

// LetGo lets the threads run.
func (p *Process) LetGo() error {
	var errs []error
	for _, th := range p.Threads {
		if err := th.Detach(); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// EndLeader lets the first thread, with a name, exit, while the others stay. It is let go before, so that its end does not end
// them; until then they are all killed with us.
func (p *Process) EndLeader(comm string) error {
	const room = 16
	name := make([]byte, room)
	copy(name[:room-1], comm)
	if err := p.Write(p.Arguments(), name); err != nil {
		return err
	}
	th := p.Threads[0]
	regs := th.tableRegs(p.layout.Area.Start+codeAt, p.layout.Area.Start+tableAt, 2)
	calls := []Call{NewCall(unix.SYS_PRCTL, unix.PR_SET_NAME, p.Arguments()), NewCall(unix.SYS_EXIT, 0)}
	if err := th.prepare(calls, &regs); err != nil {
		return err
	}
	if err := th.Detach(); err != nil {
		return err
	}
	p.Threads, p.led = p.Threads[1:], true
	deadline := time.Now().Add(idPatience)
	for remote.TaskState(p.PID, p.PID) != 'Z' {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d: its first thread does not exit: %w", p.PID, ptrace.ErrTimeout)
		}
		p.tracer.Kernel().Pause(int64(10 * time.Microsecond))
	}
	return nil
}

// Die makes the process a zombie with a name and an exit status as wait(2) gives it. One that a signal killed dies by that
// signal again; that it left a core file is not said any more.
func (p *Process) Die(comm string, status uint32) error {
	const coreLimit, limitAt = 4, 64 // RLIMIT_CORE, and where a limit of zero is: behind the name
	name := make([]byte, limitAt+16)
	copy(name[:limitAt-1], comm)
	if err := p.Write(p.Arguments(), name); err != nil {
		return err
	}
	calls := []Call{
		NewCall(unix.SYS_PRCTL, unix.PR_SET_NAME, p.Arguments()),
		NewCall(unix.SYS_SETRLIMIT, coreLimit, p.Arguments()+limitAt),
	}
	if err := errors.Join(p.Run(calls), remote.Must(calls)); err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	th := p.Threads[0]
	sig := unix.WaitStatus(status).Signal()
	if sig <= 0 {
		regs := th.tableRegs(p.layout.Area.Start+codeAt, p.layout.Area.Start+tableAt, 1)
		exit := []Call{NewCall(unix.SYS_EXIT_GROUP, uint64(status>>8&0xff))}
		if err := th.prepare(exit, &regs); err != nil {
			return err
		}
		if err := th.Cont(0); err != nil {
			return err // nobody waits for the end of one that does not run
		}
		return p.Bury()
	}
	if err := errors.Join(th.SetSigmask(0), unix.Kill(p.PID, sig)); err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	if err := th.Cont(0); err != nil && !errors.Is(err, unix.ESRCH) { // SIGKILL has not waited for us
		return err
	}
	for {
		s, err := th.WaitLong()
		if errors.Is(err, ptrace.ErrGone) {
			return nil
		}
		if err != nil {
			return err
		}
		var deliver unix.Signal
		if s.Kind == ptrace.SignalStop {
			deliver = s.Signal
		}
		if err := th.Cont(deliver); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}
