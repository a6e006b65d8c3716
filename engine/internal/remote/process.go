//go:build amd64

package remote

import (
	"errors"
	"fmt"

	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/linux"
)

// ErrRefused is a process that cannot be driven without a risk to it. The error that wraps it says why.
var ErrRefused = errors.New("cannot be driven safely")

// A Process is a process whose threads are all stopped by us.
type Process struct {
	PID int
	// Threads are the living threads, the one that is driven by default first: the leader, if it is alive.
	Threads []*Thread
	// Leftovers are scratch areas that engines which were killed have left in the process. Enter removes them.
	Leftovers []Range

	holes     []Range // what is free in its memory map, from the highest addresses down
	kernel    *linux.Kernel
	host      *Process   // whose block and area it uses: itself, or the first of those that it shares its memory with
	guests    []*Process // that use this one's
	sameFiles bool       // of a guest: it has the host's table of descriptors
	bootAt    uint64     // where the boot block goes
	bootFound []byte     // the boot block of a dead engine that was there; nil for zeros
	boot      uint64     // address of the boot block, 0 while there is none
	area      area
	sock      int      // our end of the park socket, -1 when there is none
	closing   []uint32 // descriptors of ours that are off the list, and that the first thread was about to close
	active    *Thread  // the thread that reads the park socket, if one does

	vdsoAt uint64 // where the kernel's code is, 0 as long as nobody has asked
	vdso   []byte // that code, nil as long as nobody has asked
}

// A Range is a range of addresses.
type Range struct{ Start, End uint64 }

func (r Range) size() uint64 { return r.End - r.Start }

// A Thread is a thread of a Process.
type Thread struct {
	*ptrace.Thread
	// Regs are the general registers as they were when the thread stopped, with a restartable sequence it was in
	// aborted, as the kernel would have done.
	Regs ptrace.Regs
	// Mask is the set of blocked signals.
	Mask uint64
	// Stop is how the thread was found stopped: by us, or by job control.
	Stop ptrace.Stop
	// OwnFiles says that it has another descriptor table than the first thread.
	OwnFiles bool

	p      *Process
	index  int    // number of its block in the scratch area
	place  place  // where its registers point
	block  uint64 // address of the block it is in, when it is in one
	inside bool   // its block's words are set: it may use the descriptors, if it is not apart
	apart  bool   // it does not use the descriptors: its table is, or may be, another one than they are in
}

// A place is where a thread's registers point.
type place int

const (
	placeOwn    place = iota // in the program: everything as found
	placeDoor                // at the door of its block, in an event stop, with the mask as found
	placeInside              // in its block, all signals blocked
)

// Live is a thread by which the kernel shows what the process has: once the leader has exited, it shows nothing under the
// number of the process.
func (p *Process) Live() int { return p.Threads[0].TID }

// dead tells whether the thread is no more than a name.
func (th *Thread) dead() bool {
	switch TaskState(th.p.PID, th.TID) {
	case 0, 'Z', 'X':
		return true
	}
	return false
}

// Freeze seizes all threads of a process and stops them. When it fails they run on.
func Freeze(t *ptrace.Tracer, pid int) (*Process, error) {
	p := &Process{PID: pid, kernel: t.Kernel(), sock: -1}
	p.host = p
	if err := p.freeze(t); err != nil {
		return nil, errors.Join(fmt.Errorf("freeze process %d: %w", pid, err), wayOut(t, p.letGo))
	}
	return p, nil
}

func (p *Process) freeze(t *ptrace.Tracer) error {
	// New threads appear until all are stopped, so the list is read until it holds nothing new.
	defer t.BuryMeanwhile(p.PID)()
	seen := make(map[int]bool)
	for range 1000 { // who executes program after program is caught in one of them
		fresh, listed, err := p.seizeFresh(t, seen)
		if err != nil {
			return err
		}
		for _, th := range fresh {
			if err := p.stop(th); errors.Is(err, unix.ECHILD) {
				th.Lost()
			} else if err != nil && !errors.Is(err, ptrace.ErrGone) {
				return err
			}
		}
		all := len(p.Threads)
		p.Threads = slices.DeleteFunc(p.Threads, func(th *Thread) bool { return th.Gone() })
		switch {
		case len(p.Threads) < all, len(fresh) == 0 && !p.stands(t, listed):
			if err := p.executed(); err != nil {
				return err
			}
		case p.firstMissing():
			seen[p.PID] = false
		case len(fresh) > 0:
		case len(p.Threads) > 0:
			for i, th := range p.Threads {
				th.index = i
			}
			return p.examine()
		case p.ended():
			return ptrace.ErrGone
		default:
			t.Kernel().Pause(int64(time.Millisecond))
		}
	}
	return fmt.Errorf("it executes one program after the other: %w", ptrace.ErrTimeout)
}

// stands reports whether the first of the threads that were stopped still is, and so many are all that there are. A thread that was not
// seen may have executed a program; and a list of threads may have ended early, at one that ended while it was read.
func (p *Process) stands(t *ptrace.Tracer, listed int) bool {
	if len(p.Threads) == 0 {
		return true
	}
	stat, err := t.Proc().Thread(p.PID, p.Live()).Stat()
	return err == nil && stat.PID == p.Live() && stat.State == 't' && stat.NumThreads == listed
}

// ended reports whether no thread of the process lives.
func (p *Process) ended() bool {
	tids, err := taskIDs(p.PID)
	return missing(err) || err == nil && !slices.ContainsFunc(tids, func(tid int) bool {
		state := TaskState(p.PID, tid)
		return state != 'Z' && state != 'X'
	})
}

// firstMissing reports whether there is a first thread that lives and is not among those that were stopped.
func (p *Process) firstMissing() bool {
	if slices.ContainsFunc(p.Threads, func(th *Thread) bool { return th.TID == p.PID }) {
		return false
	}
	switch TaskState(p.PID, p.PID) {
	case 0, 'Z', 'X':
		return false
	}
	return true
}

// seizeFresh lists the threads, and seizes those that have not been seen.
func (p *Process) seizeFresh(t *ptrace.Tracer, seen map[int]bool) (fresh []*Thread, listed int, err error) {
	tids, err := taskIDs(p.PID)
	if len(seen) > 0 && missing(err) {
		return nil, 0, ptrace.ErrGone
	}
	if err != nil {
		return nil, 0, err
	}
	for _, tid := range tids {
		if seen[tid] {
			continue
		}
		seen[tid] = true
		th, err := p.seize(t, tid)
		if err != nil {
			return nil, 0, err
		}
		if th != nil {
			fresh = append(fresh, th)
		}
	}
	return fresh, len(tids), nil
}

// stop stops a thread. One that is killed as it stands, since another executes a program, is waited for once more.
func (p *Process) stop(th *Thread) (err error) {
	for range 3 {
		if err = th.stop(); !errors.Is(err, unix.ESRCH) {
			break
		}
	}
	return err
}

// executed comes to terms with threads that have gone, perhaps since one has executed a program. All others have died for that, and
// that one has the number of the first thread now (fs/exec.c: de_thread). If it was asked to stop it stops where the program begins.
func (p *Process) executed() error {
	var first *Thread
	for _, th := range p.Threads {
		if th.TID == p.PID {
			first = th
		} else if TaskState(p.PID, th.TID) == 0 {
			th.Lost()
		}
	}
	if first == nil {
		return nil
	}
	// Its stop may have been taken for that of the thread which had the number before.
	due, err := first.StopDue()
	if due {
		err = p.stop(first)
	}
	if errors.Is(err, unix.ECHILD) || errors.Is(err, ptrace.ErrGone) {
		first.Lost() // the thread that has the number was not seized
		return nil
	}
	return err
}

// seize starts to trace a thread and asks it to stop. A thread that has gone meanwhile is nil.
func (p *Process) seize(t *ptrace.Tracer, tid int) (*Thread, error) {
	pt, err := t.Seize(tid)
	for try := 0; err != nil; try++ {
		state := TaskState(p.PID, tid)
		if state == 0 || state == 'Z' || state == 'X' {
			return nil, nil
		}
		// A leader that was dead may live again: a thread that executes a program takes its number (fs/exec.c: de_thread). Who is
		// about to be dead cannot be traced already.
		const tries = 100
		tracer := statusNumber(p.PID, tid, "TracerPid")
		if (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM) && tracer == 0) && try < tries {
			t.Kernel().Pause(int64(try) * 1000)
			pt, err = t.Seize(tid)
			continue
		}
		if errors.Is(err, unix.EPERM) && tracer == unix.Gettid() && tid == p.PID {
			pt, err = t.Adopt(tid), nil // it was seized under another number, and has executed a program since then
			break
		}
		if errors.Is(err, unix.EPERM) && tracer != 0 {
			return nil, fmt.Errorf("%w: task %d is traced by process %d already", err, tid, tracer)
		}
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("%w: it belongs to another user, has capabilities that this program has not, or has made itself undumpable, "+
				"and who has not CAP_SYS_PTRACE may not trace it", err)
		}
		return nil, err
	}
	th := &Thread{Thread: pt, p: p}
	p.Threads = append(p.Threads, th)
	if err := pt.Interrupt(); !errors.Is(err, unix.ESRCH) {
		return th, err
	}
	// It has ended, or has the number of the first thread now, and was not asked to stop.
	if TaskState(p.PID, tid) != 0 || tid == p.PID {
		return th, nil
	}
	th.Lost()
	if i := slices.IndexFunc(p.Threads, func(th *Thread) bool { return th.TID == p.PID && !th.Gone() }); i >= 0 {
		if err := p.Threads[i].Interrupt(); !errors.Is(err, unix.ESRCH) {
			return nil, err
		}
	}
	return nil, nil
}

// stop waits until the thread has stopped and notes its state.
func (th *Thread) stop() error {
	s, err := th.settle()
	if err != nil {
		return err
	}
	th.Stop = s
	if err := th.note(); err != nil {
		return err
	}
	if err := th.leaveClock(); err != nil {
		return err
	}
	if err := th.waitOn(); err != nil {
		return err
	}
	return th.abortRseq()
}

// note reads the thread's state.
func (th *Thread) note() (err error) {
	if th.Regs, err = th.Thread.Regs(); err != nil {
		return err
	}
	th.Mask, err = th.Sigmask()
	return err
}

// examine looks whether the process can be driven.
func (p *Process) examine() error {
	if err := p.lookAround(); err != nil {
		return err
	}
	for _, th := range p.Threads {
		// A thread may still be on its way back from an engine that was killed: when it is looked at at once, or in a
		// process stopped by job control.
		if p.oldBlock(th.Regs.PC()) == 0 {
			continue
		}
		if err := errors.Join(th.comeBack(), th.note(), p.lookAround()); err != nil {
			return err
		}
	}
	if err := p.Threads[0].freeBootPlace(); err != nil {
		return err
	}
	for _, th := range p.Threads {
		if err := th.examine(); err != nil {
			return err
		}
	}
	return nil
}

// lookAround reads the memory map, finds what dead engines have left, and where there is room for us.
func (p *Process) lookAround() error {
	maps, err := p.Threads[0].Tracer().Proc().Process(p.Live()).Maps()
	if err != nil {
		return err
	}
	p.holes = holes(maps)
	p.Leftovers = nil
	for i := range maps {
		left, err := p.isLeftover(&maps[i])
		if err != nil {
			return err
		}
		if left {
			p.Leftovers = append(p.Leftovers, Range{maps[i].Start, maps[i].End})
		}
	}
	return p.bootPlace(maps)
}

func (th *Thread) examine() error {
	if err := checkRegs(&th.Regs); err != nil {
		return fmt.Errorf("task %d: %w", th.TID, err)
	}
	// Calls of a thread with a dispatcher would end in its SIGSYS handler once we are gone.
	if on, err := th.p.kernel.HasSyscallDispatch(th.TID); err == nil && on {
		return fmt.Errorf("task %d: %w: it dispatches its system calls to itself (PR_SET_SYSCALL_USER_DISPATCH)", th.TID, ErrRefused)
	}
	if status, err := th.Tracer().Proc().Thread(th.p.PID, th.TID).Status(); err == nil && status.Seccomp != 0 {
		if err := th.examineSeccomp(status.Seccomp); err != nil {
			return fmt.Errorf("task %d: %w", th.TID, err)
		}
	}
	if first := th.p.Threads[0]; th != first {
		same, err := th.p.kernel.Same(first.TID, th.TID, linux.SameFiles, 0, 0)
		if err != nil {
			return err
		}
		th.OwnFiles, th.apart = !same, !same
	}
	return nil
}

// letGo detaches from all threads that are stopped. It is the last step of every way out.
func (p *Process) letGo() error {
	var errs []error
	for _, th := range p.Threads {
		if th.Gone() || th.waits() {
			continue // the end of our thread lets it go
		}
		// A tracee can be left only when it is stopped. One that does not stop, the end of our thread lets go.
		if err := twice(th.Halt); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := twice(th.Detach); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Read reads the process's memory.
func (p *Process) Read(addr uint64, buf []byte) error {
	return p.kernel.ReadMemory(p.Threads[0].TID, addr, buf)
}

// ReadParts reads parts of the process's memory, one after the other, into buf, which has to be as long as they are together.
// Unlike all else it may be called on any thread.
func (p *Process) ReadParts(parts []unix.RemoteIovec, buf []byte) error {
	return p.kernel.ReadMemoryParts(p.Threads[0].TID, parts, buf)
}

// Write writes the process's memory, as far as the process itself could.
func (p *Process) Write(addr uint64, buf []byte) error {
	return p.kernel.WriteMemory(p.Threads[0].TID, addr, buf)
}

// taskIDs lists the threads of a process. While a program is executed they may be not to be found for a moment.
func taskIDs(pid int) ([]int, error) {
	names, err := linux.ReadProcDir(fmt.Sprintf("/proc/%d/task", pid))
	for try := 0; try < 100 && missing(err) && !errors.Is(unix.Kill(pid, 0), unix.ESRCH); try++ {
		time.Sleep(100 * time.Microsecond)
		names, err = linux.ReadProcDir(fmt.Sprintf("/proc/%d/task", pid))
	}
	if err != nil {
		return nil, err
	}
	ids := make([]int, 0, len(names))
	for _, name := range names {
		if id, err := strconv.Atoi(name); err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	// The leader first: its id is the process's, not always the smallest.
	if i := slices.Index(ids, pid); i > 0 {
		ids = slices.Insert(slices.Delete(ids, i, i+1), 0, pid)
	}
	return ids, nil
}

func missing(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
