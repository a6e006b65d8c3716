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
	"stasis.example/internal/proc"
)

// A Child is a process to be made.
type Child struct {
	PID   int    // 0 for any
	Flags uint64 // CLONE_ flags beyond those of a plain fork: CLONE_PARENT, and what is shared with the parent
}

const (
	cloneArgsSize = 88
	cloneRoom     = cloneArgsSize + 8 // with the number that set_tid points to
	// ClearHandlers has the new process start without signal handlers (CLONE_CLEAR_SIGHAND, Linux 5.5).
	ClearHandlers = 0x100000000
)

// putClone writes a struct clone_args, followed by the thread id that set_tid points to.
func putClone(b []byte, at, flags uint64, tid int, exitSignal uint64) {
	put := func(i int, v uint64) { binary.LittleEndian.PutUint64(b[i:], v) }
	put(0, flags|unix.CLONE_PTRACE)
	put(32, exitSignal)
	if tid > 0 {
		put(64, at+cloneArgsSize) // set_tid
		put(72, 1)
		put(cloneArgsSize, uint64(tid))
	}
}

// Fork makes children, each of which stops before it executes anything. Those that were made are returned with an error, too.
func (p *Process) Fork(children []Child) ([]*Process, error) { return p.ForkBy(0, children) }

// ForkBy lets a certain thread do what Fork does; 0 is the first.
func (p *Process) ForkBy(tid int, children []Child) ([]*Process, error) {
	by, err := p.thread(tid)
	if err != nil {
		return nil, err
	}
	var made []*Process
	const room = ArgumentRoom / cloneRoom
	for len(children) > 0 {
		n := min(len(children), room, tableRoom)
		ids, err := p.clone(by, n, func(i int) (flags uint64, tid int, exitSignal uint64) {
			if children[i].Flags&unix.CLONE_PARENT != 0 {
				return children[i].Flags, children[i].PID, 0 // it ends with the signal of the one that forks it
			}
			return children[i].Flags, children[i].PID, uint64(unix.SIGCHLD)
		})
		for _, pid := range ids {
			c := &Process{PID: pid, tracer: p.tracer, layout: p.layout, base: p.base}
			c.Threads = []*Thread{{Thread: p.tracer.Adopt(pid), p: c}}
			made = append(made, c)
		}
		if err != nil {
			return made, err
		}
		children = children[n:]
	}
	for _, c := range made {
		if _, err := c.Threads[0].Settle(); err != nil {
			return made, err
		}
	}
	return made, nil
}

// threadFlags are what threads share as a rule.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM

// AddThread lets a thread of the process make another. apart are the CLONE_ flags of what the two do not share.
func (p *Process) AddThread(tid, by int, apart uint64) error {
	maker, err := p.thread(by)
	if err != nil {
		return err
	}
	return p.addThreads(maker, []int{tid}, threadFlags&^apart)
}

// thread returns a thread by its number; 0 is the first.
func (p *Process) thread(tid int) (*Thread, error) {
	if tid == 0 {
		return p.Threads[0], nil
	}
	at := slices.IndexFunc(p.Threads, func(th *Thread) bool { return th.TID == tid })
	if at < 0 {
		return nil, fmt.Errorf("process %d has no thread %d that could make others", p.PID, tid)
	}
	return p.Threads[at], nil
}

// AddThreads makes threads with the numbers given.
func (p *Process) AddThreads(tids []int) error { return p.addThreads(p.Threads[0], tids, threadFlags) }

func (p *Process) addThreads(by *Thread, tids []int, flags uint64) error {
	const room = ArgumentRoom / cloneRoom
	for len(tids) > 0 {
		n := min(len(tids), room, tableRoom)
		ids, err := p.clone(by, n, func(i int) (uint64, int, uint64) { return flags, tids[i], 0 })
		for _, tid := range ids {
			p.Threads = append(p.Threads, &Thread{Thread: p.tracer.Adopt(tid), p: p})
		}
		if err != nil {
			return err
		}
		tids = tids[n:]
	}
	for _, th := range p.Threads[1:] {
		if th.Stopped() {
			continue
		}
		if _, err := th.Settle(); err != nil {
			return err
		}
	}
	return nil
}

// clone lets a thread make n tasks, and returns the numbers of those that were made.
func (p *Process) clone(by *Thread, n int, arguments func(i int) (flags uint64, tid int, exitSignal uint64)) ([]int, error) {
	at := p.Arguments()
	b := make([]byte, n*cloneRoom)
	calls := make([]Call, n)
	for i := range calls {
		flags, tid, exit := arguments(i)
		where := at + uint64(i*cloneRoom)
		putClone(b[i*cloneRoom:], where, flags, tid, exit)
		calls[i] = NewCall(unix.SYS_CLONE3, where, cloneArgsSize)
	}
	if err := p.Write(at, b); err != nil {
		return nil, err
	}
	if err := by.Run(calls); err != nil {
		return p.stray(calls), err
	}
	var made []int
	deadline := time.Now().Add(idPatience)
	for i := range calls {
		_, tid, _ := arguments(i)
		for errors.Is(calls[i].Err(), unix.EEXIST) && !idInUse(p.tracer.Proc().Process(tid)) && time.Now().Before(deadline) {
			// The one who had the number may be dead and waited for, and the kernel not yet done with it (release_task).
			p.tracer.Kernel().Pause(int64(time.Millisecond))
			if err := by.Run(calls[i : i+1]); err != nil {
				return made, err
			}
		}
		if err := calls[i].Err(); err != nil {
			return made, cloneError(tid, err)
		}
		made = append(made, int(calls[i].Ret))
	}
	return made, nil
}

// stray finds out which tasks were made by calls whose results did not come to us.
func (p *Process) stray(calls []Call) []int {
	b := make([]byte, len(calls)*entrySize)
	if err := p.Read(p.layout.Area.Start+tableAt, b); err != nil {
		return nil
	}
	var made []int
	for i := range calls {
		if id := int64(binary.LittleEndian.Uint64(b[i*entrySize+56:])); id > 0 && id <= maxID {
			made = append(made, int(id))
		}
	}
	return made
}

// maxID is the largest number that a task can have (PID_MAX_LIMIT).
const maxID = 1 << 22

// cloneError says why a task was not made, and what to do about it.
func cloneError(tid int, err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("the number %d is in use: %w", tid, err)
	case errors.Is(err, unix.EPERM) && tid > 0:
		return fmt.Errorf("a task with the number %d may not be made without CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN): %w", tid, err)
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("no more tasks may be made (RLIMIT_NPROC, pids.max or kernel.pid_max): %w", err)
	}
	return fmt.Errorf("make task %d: %w", tid, err)
}

// idPatience is how long a number may stay taken after its task has gone.
const idPatience = 2 * time.Second

// idInUse reports whether a task with a number lives, and is not about to end: one that a dump has killed takes its time, most
// of all with a lot of memory.
func idInUse(task proc.Dir) bool {
	stat, err := task.Stat()
	const exiting = 4 // PF_EXITING
	if err != nil || stat.State == 'Z' || stat.State == 'X' || stat.Flags&exiting != 0 {
		return false
	}
	status, err := task.Status()
	const kill = 1 << (unix.SIGKILL - 1)
	return err == nil && (status.SigPnd|status.ShdPnd)&kill == 0
}

// Destroy kills the process and waits until it is gone.
func (p *Process) Destroy() error {
	err := unix.Kill(p.PID, unix.SIGKILL)
	if errors.Is(err, unix.ESRCH) {
		err = nil
	}
	return errors.Join(err, p.Bury())
}

// Bury waits until all threads of a process that was killed, or has ended, are gone.
func (p *Process) Bury() error {
	p.adoptStrays()
	var errs []error
	for i := len(p.Threads) - 1; i >= 0; i-- {
		for {
			_, err := p.Threads[i].WaitLong()
			if errors.Is(err, ptrace.ErrGone) || errors.Is(err, unix.ECHILD) {
				break
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if p.led {
		errs = append(errs, p.buryLeader())
	}
	return errors.Join(errs...)
}

// adoptStrays takes up threads that nobody has told us of, as the call that made them failed while they were made: the kernel has us trace
// them, and the first thread is not gone before they are. Who has a signal that kills makes no others.
func (p *Process) adoptStrays() {
	tids, _ := p.tracer.Proc().Process(p.PID).Threads() // none where there is no process
	for _, tid := range tids {
		known := tid == p.PID && p.led || slices.ContainsFunc(p.Threads, func(th *Thread) bool { return th.TID == tid })
		if !known {
			p.Threads = append(p.Threads, &Thread{Thread: p.tracer.Adopt(tid), p: p})
		}
	}
}

// buryLeader waits for a process whose first thread we do not trace any more, if it is a child of ours. Otherwise its parent is one
// that we have made, or nobody.
func (p *Process) buryLeader() error {
	deadline := time.Now().Add(idPatience)
	for {
		pid, err := unix.Wait4(p.PID, nil, unix.WNOHANG|unix.WALL, nil)
		switch {
		case pid == p.PID || errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("process %d: %w", p.PID, ptrace.ErrTimeout)
		}
		p.tracer.Kernel().Pause(int64(10 * time.Microsecond))
	}
}
