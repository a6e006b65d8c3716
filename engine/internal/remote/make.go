//go:build amd64

package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
)

// Making processes. A program of ours is started, entered, and copied by clone3 under the pid that is wanted; the copy
// has the scratch area and the park socket, and is shaped by calls of its own. Release then is its start: it puts the
// registers and the mask in force that Become has given. All of it is traced with ExitKill, so that nothing half-made
// survives us; the way back of package remote has no part in it.

// A Seed is what a process is to be copied into.
type Seed struct {
	Avoid   []Mapping // where the copy will have mappings
	Threads int
	FDs     int // descriptors of the copy are below this number
}

// EnterToCopy is Enter for a process that is to be copied.
func (p *Process) EnterToCopy(s Seed) error {
	p.seed = &s
	return p.Enter()
}

func (p *Process) room() int {
	if p.seed != nil {
		return p.seed.Threads
	}
	return len(p.Threads)
}

func (p *Process) avoid() []Mapping {
	if p.seed != nil {
		return p.seed.Avoid
	}
	return nil
}

// movePark moves the park socket to a number that the copy's files do not need.
func (p *Process) movePark(fd uint32) error {
	first := p.Threads[0]
	dup := NewCall(unix.SYS_FCNTL, uint64(fd), unix.F_DUPFD_CLOEXEC, uint64(p.seed.FDs))
	if err := errors.Join(first.single(first.block, &dup, nil), dup.fail()); err != nil {
		return err
	}
	if err := p.Write(p.area.fd(parkSlot), binary.LittleEndian.AppendUint32(nil, uint32(dup.Ret))); err != nil {
		return err
	}
	closing := NewCall(unix.SYS_CLOSE, uint64(fd))
	return errors.Join(first.single(first.block, &closing, nil), closing.fail())
}

const (
	cloneArgsSize = 88
	// cloneClearSighand resets signal handlers (Linux 5.5).
	cloneClearSighand = 0x100000000
)

// cloneArgs is struct clone_args, followed by the thread id that set_tid points to.
func cloneArgs(at, flags uint64, tid int) []byte {
	b := make([]byte, cloneArgsSize+8)
	put := func(i int, v uint64) { binary.LittleEndian.PutUint64(b[i:], v) }
	put(0, flags|unix.CLONE_PTRACE)
	put(64, at+cloneArgsSize) // set_tid
	put(72, 1)
	put(cloneArgsSize, uint64(tid))
	return b
}

// clone makes a task with a thread id, which stops before it executes anything.
func (p *Process) clone(flags uint64, tid int) (*ptrace.Thread, error) {
	at, _ := p.Data()
	if err := p.Write(at, cloneArgs(at, flags, tid)); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(idPatience)
	for {
		calls := []Call{NewCall(unix.SYS_CLONE3, at, cloneArgsSize)}
		if err := p.Run(calls); err != nil {
			return nil, errors.Join(err, p.killIfMade(tid))
		}
		err := calls[0].Err()
		if err == nil {
			break
		}
		// The one who had the id may be dead and waited for, and the kernel not yet done with it (release_task).
		if !errors.Is(err, unix.EEXIST) || idInUse(tid) || time.Now().After(deadline) {
			return nil, fmt.Errorf("make task %d: %w", tid, err)
		}
		p.kernel.Pause(int64(time.Millisecond))
	}
	th := p.Threads[0].Tracer().Adopt(tid)
	_, err := th.Settle()
	return th, err
}

// idPatience is how long an id may stay taken after its task has gone.
const idPatience = 2 * time.Second

// idInUse reports whether a task with the id lives.
func idInUse(tid int) bool {
	state := taskState(tid, tid)
	return state != 0 && state != 'Z' && state != 'X'
}

// killIfMade kills a task that may have been made though we were not told: one with the id, traced by us.
func (p *Process) killIfMade(tid int) error {
	t := p.Threads[0].Tracer()
	if statusNumber(tid, tid, "TracerPid") != unix.Gettid() || statusNumber(tid, tid, "PPid") != unix.Getpid() {
		return nil
	}
	made := &Process{PID: tid, kernel: p.kernel, sock: -1}
	made.Threads = []*Thread{{Thread: t.Adopt(tid), p: made}}
	return made.Destroy()
}

// Copy makes the copy, a child of ours, and ends the original. What comes with an error is to be killed.
func (p *Process) Copy(pid int) (*Process, error) {
	th, err := p.clone(unix.CLONE_PARENT|cloneClearSighand, pid)
	if th == nil {
		return nil, err
	}
	c := &Process{PID: pid, kernel: p.kernel, area: p.area, sock: p.sock, seed: p.seed}
	first := &Thread{Thread: th, p: c, place: placeInside, block: p.area.block(0), inside: true}
	c.Threads = []*Thread{first}
	p.sock = -1
	if err == nil {
		first.Regs, err = th.Regs()
	}
	return c, errors.Join(err, p.Kill(), p.Threads[0].awaitEnd())
}

// Destroy kills a process that was made, and waits until it is gone.
func (p *Process) Destroy() error {
	if err := p.Kill(); err != nil {
		return err
	}
	return wayOut(p.Threads[0].Tracer(), p.Threads[0].awaitEnd)
}

// AddThread makes a thread with an id.
func (p *Process) AddThread(tid int) (*Thread, error) {
	const flags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	pt, err := p.clone(flags, tid)
	if err != nil {
		return nil, err
	}
	th := &Thread{Thread: pt, p: p, index: len(p.Threads), place: placeInside}
	th.Regs = p.Threads[0].Regs
	th.block = p.area.block(th.index)
	p.Threads = append(p.Threads, th)
	return th, p.Write(th.block, th.blockBytes(false))
}

// Scratch is where the scratch area lies.
func (p *Process) Scratch() (start, end uint64) { return p.area.start, p.area.start + p.area.length }

// KeepGiven makes the descriptor that GiveFile gave the process's own.
func (p *Process) KeepGiven() error {
	return p.Write(p.area.fd(givenSlot), []byte{0xff, 0xff, 0xff, 0xff})
}

// Become gives a thread that was made the state that it is to start with.
func (th *Thread) Become(regs ptrace.Regs, mask uint64, xstate []byte) error {
	if err := th.halt(); err != nil {
		return err
	}
	th.Regs, th.Mask = regs, mask
	return th.SetXState(xstate)
}

// ReadyToStart puts a boot block into the vDSO that the process has got, by which Release removes the scratch area. All
// threads have become what they are to be.
func (p *Process) ReadyToStart() error {
	if err := p.lookAround(); err != nil {
		return err
	}
	p.boot = p.bootAt
	return p.kernel.ForceMemory(p.Threads[0].TID, p.boot, p.Threads[0].bootBytes(&p.area))
}
