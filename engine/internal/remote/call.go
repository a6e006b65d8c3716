//go:build amd64

package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
)

// A Call is one system call for a thread of the process to make.
type Call struct {
	Nr uint32
	// Slot, if not 0, is the descriptor slot, FirstSlot to LastSlot, that a call whose result is a descriptor fills, or
	// that a close empties. A descriptor in a slot is closed when we die.
	Slot uint32
	Args [6]uint64
	// Ret is the result, once the call was made: an errno is a negative number. See Err.
	Ret uint64
}

const callSize = 64

// NewCall returns a call with some arguments, the others being 0.
func NewCall(nr uint32, args ...uint64) Call {
	c := Call{Nr: nr}
	copy(c.Args[:], args)
	return c
}

// Err returns the errno that the call failed with, nil when it did not.
func (c *Call) Err() error {
	if n := int64(c.Ret); n < 0 && n >= -4095 {
		return unix.Errno(-n)
	}
	return nil
}

func (c *Call) fail() error {
	if err := c.Err(); err != nil {
		return fmt.Errorf("remote system call %d(%#x): %w", c.Nr, c.Args, err)
	}
	return nil
}

// Must returns the error of the first call that failed.
func Must(calls []Call) error {
	for i := range calls {
		if err := calls[i].fail(); err != nil {
			return err
		}
	}
	return nil
}

// encodeCalls appends calls as a table has them.
func encodeCalls(b []byte, calls []Call) []byte {
	for i := range calls {
		b = binary.LittleEndian.AppendUint32(b, calls[i].Nr)
		b = binary.LittleEndian.AppendUint32(b, calls[i].Slot)
		for _, a := range calls[i].Args {
			b = binary.LittleEndian.AppendUint64(b, a)
		}
		b = binary.LittleEndian.AppendUint64(b, 0)
	}
	return b
}

// Data is the room for arguments that calls of a process may use: its address in the process and its length.
func (p *Process) Data() (addr, length uint64) { return p.host.area.start + p.host.area.data, mainData }

// Data is the room for arguments that calls of one thread may use beside others.
func (th *Thread) Data() (addr, length uint64) {
	return th.p.host.area.cell(th.index) + cellTable, cellSize - cellTable
}

// Run lets the first thread make the calls, one after the other, whatever their results, which are in the calls
// afterwards. Calls that fail are no error here.
func (p *Process) Run(calls []Call) error {
	return p.runTable(p.Threads[0], p.area.start+p.area.table, mainTable/callSize, calls, false)
}

// RunBulk is Run for calls that take long: between two of them the process looks whether we are still there. The end of
// the tracer's context stops it after the call at hand. It returns how many calls were made.
func (p *Process) RunBulk(calls []Call) (int, error) {
	done := 0
	for batch := range slices.Chunk(calls, mainTable/callSize) {
		if err := p.runTable(p.Threads[0], p.area.start+p.area.table, mainTable/callSize, batch, true); err != nil {
			return done, err
		}
		left, err := p.Threads[0].left()
		done += len(batch) - left
		if err != nil || left > 0 {
			return done, errors.Join(err, p.Threads[0].Tracer().Context().Err())
		}
	}
	return done, nil
}

// Run lets this thread make the calls, as Process.Run does.
func (th *Thread) Run(calls []Call) error {
	if th == th.p.Threads[0] {
		return th.p.Run(calls)
	}
	return th.p.runTable(th, th.p.host.area.cell(th.index), cellTable/callSize, calls, false)
}

func (p *Process) runTable(th *Thread, table uint64, room int, calls []Call, bulk bool) error {
	for batch := range slices.Chunk(calls, room) {
		err := th.Tracer().Context().Err()
		if err != nil {
			return err
		}
		if p.sock < 0 || th.apart {
			err = th.runSingly(batch)
		} else {
			err = th.runBatch(table, batch, bulk)
		}
		if err != nil {
			return fmt.Errorf("process %d: %w", p.PID, err)
		}
	}
	return nil
}

// runSingly is for a process that cannot have a park socket, as when all its descriptors are in use, and for a thread in whose
// table of descriptors the socket is not.
func (th *Thread) runSingly(calls []Call) error {
	if err := th.enter(); err != nil {
		return err
	}
	for i := range calls {
		if th.apart && calls[i].Slot != 0 {
			return fmt.Errorf("task %d: a descriptor of ours in a table that ours are not in: %w", th.TID, unix.EBADF)
		}
		if err := th.single(th.block, &calls[i], nil); err != nil {
			return err
		}
	}
	return nil
}

// runBatch writes the table, starts the thread and waits for its word.
func (th *Thread) runBatch(table uint64, calls []Call, bulk bool) error {
	p := th.p
	size := len(calls) * callSize
	if err := p.Write(table, encodeCalls(th.Tracer().Room(size)[:0], calls)); err != nil {
		return err
	}
	if err := th.start(table, len(calls), bulk); err != nil {
		return err
	}
	if err := p.waitDone(th); err != nil {
		return err
	}
	results := th.Tracer().Room(size)
	if err := p.Read(table, results); err != nil {
		return err
	}
	for i := range calls {
		calls[i].Ret = binary.LittleEndian.Uint64(results[i*callSize+56:])
	}
	return nil
}

// start lets a thread run its table. The one that reads the park socket is started by a word on it, without a stop. Any
// other has to be put there, and the one that reads has to stop first, lest it take the word for itself.
func (th *Thread) start(table uint64, n int, bulk bool) error {
	p := th.p
	if p.active != nil && p.active != th {
		if err := p.active.halt(); err != nil {
			return err
		}
	}
	if p.active != th {
		if err := th.enter(); err != nil {
			return err
		}
	}
	job := make([]byte, 16)
	binary.LittleEndian.PutUint64(job, table)
	binary.LittleEndian.PutUint32(job[8:], uint32(n))
	if bulk {
		job[12] = 1
	}
	if err := p.Write(th.block+blkJob, job); err != nil {
		return err
	}
	if p.active == th {
		return p.send(wordRun)
	}
	regs := th.codeRegs(th.block + blkRun)
	if err := th.SetRegs(&regs); err != nil {
		return err
	}
	if err := th.Cont(0); err != nil {
		return err
	}
	p.active = th
	return nil
}

// Words on the park socket, to the process.
const (
	wordRun  = 1 // run the table again
	wordStop = 2 // stop after the call at hand, if a table is running
)

func (p *Process) send(word uint64) error {
	if err := unix.Send(p.sock, binary.LittleEndian.AppendUint64(nil, word), unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("park socket: %w", err)
	}
	return nil
}

// waitDone waits for a thread's word that its table is run. Job control may stop the thread meanwhile: it is made to go
// on, and is stopped again when it is released.
func (p *Process) waitDone(th *Thread) error {
	const look = 20 // ms between looks at what else may have happened
	t := th.Tracer()
	cancelled := false
	deadline := time.Now().Add(callPatience)
	for {
		fds := []unix.PollFd{{Fd: int32(p.sock), Events: unix.POLLIN}, {Fd: int32(t.WakeFD()), Events: unix.POLLIN}}
		if cancelled || t.WakeFD() < 0 {
			fds = fds[:1]
		}
		n, err := unix.Poll(fds, look)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents != 0 {
			return p.receiveDone(th)
		}
		if n > 0 && !cancelled {
			// The calls at hand are short, or the thread looks between them.
			cancelled = true
			if err := p.send(wordStop); err != nil {
				return err
			}
		}
		if s, stopped, err := th.Poll(); err != nil {
			return err
		} else if stopped {
			if s.Kind == ptrace.SignalStop {
				return fmt.Errorf("task %d: %v in a remote system call", th.TID, s.Signal)
			}
			if err := th.Cont(0); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("task %d: a remote system call does not return: %w", th.TID, ptrace.ErrTimeout)
		}
	}
}

// callPatience is how long one round of calls may take: a bulk call writes some MiB to a disk that may be slow.
const callPatience = 2 * time.Minute

func (p *Process) receiveDone(th *Thread) error {
	var b [8]byte
	n, _, err := unix.Recvfrom(p.sock, b[:], 0)
	switch {
	case err != nil:
		return fmt.Errorf("park socket: %w", err)
	case n == 0:
		return fmt.Errorf("process %d: %w", p.PID, ptrace.ErrGone)
	case n != len(b) || binary.LittleEndian.Uint64(b[:]) != uint64(th.index):
		return fmt.Errorf("park socket: an unexpected message %x", b[:n])
	}
	return nil
}

// GiveFile gives the process a copy of a descriptor of ours, close-on-exec, and returns its number there. It can have one
// at a time; TakeBack closes it. It comes over the park socket, so that it does not matter what the process may see or
// open, and its number is noted, before anything else can happen, where the way back closes it.
func (p *Process) GiveFile(fd int) (uint64, error) {
	if p.sock < 0 {
		return 0, fmt.Errorf("process %d: give it a descriptor: %w", p.PID, unix.EMFILE)
	}
	// When the context ends there may be a word on the socket that nobody is going to read (waitDone).
	if err := p.Threads[0].Tracer().Context().Err(); err != nil {
		return 0, err
	}
	const headSize, headLen, iovLen = 16, 56, 16 // of struct cmsghdr, msghdr and iovec
	data, _ := p.Data()
	head := make([]byte, headLen+iovLen)
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(head[at:], v) }
	put(16, data+headLen) // msg_iov
	put(24, 1)
	put(32, p.area.start+sharedControl) // msg_control
	put(40, headSize+4)
	put(headLen, data+headLen+iovLen) // one byte behind
	put(headLen+8, 1)
	if err := p.Write(data, head); err != nil {
		return 0, err
	}
	first, table := p.Threads[0], p.area.start+p.area.table
	calls := []Call{NewCall(unix.SYS_RECVMSG, 0, data, unix.MSG_CMSG_CLOEXEC)}
	var b [4]byte
	if err := p.Read(p.area.fd(parkSlot), b[:]); err != nil {
		return 0, err
	}
	calls[0].Args[0] = uint64(binary.LittleEndian.Uint32(b[:]))
	if err := p.Write(table, encodeCalls(nil, calls)); err != nil {
		return 0, err
	}
	// Started first: a thread that still reads the socket for its next word would take the message for it.
	if err := first.start(table, 1, false); err != nil {
		return 0, err
	}
	if err := unix.Sendmsg(p.sock, []byte{0}, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL); err != nil {
		return 0, fmt.Errorf("park socket: %w", err)
	}
	if err := p.waitDone(first); err != nil {
		return 0, err
	}
	if err := p.Read(p.area.fd(givenSlot), b[:]); err != nil {
		return 0, err
	}
	n := int32(binary.LittleEndian.Uint32(b[:]))
	if n < 0 {
		return 0, fmt.Errorf("process %d: give it a descriptor: %w", p.PID, unix.EMFILE)
	}
	return uint64(n), nil
}

// TakeBack closes the descriptor that GiveFile gave.
func (p *Process) TakeBack(fd uint64) error {
	closing := []Call{{Nr: unix.SYS_CLOSE, Slot: givenSlot, Args: [6]uint64{fd}}}
	return errors.Join(p.Run(closing), Must(closing))
}

// left reads how many entries of the last table the thread did not run.
func (th *Thread) left() (int, error) {
	if th.p.sock < 0 {
		return 0, nil
	}
	var b [4]byte
	err := th.p.Read(th.block+blkLeft, b[:])
	return int(binary.LittleEndian.Uint32(b[:])), err
}

// single makes one call between two syscall stops, with the thread in the given block, all signals blocked. atEntry,
// where given, runs at the first stop, when nothing can keep the call from being made.
func (th *Thread) single(block uint64, c *Call, atEntry func() error) error {
	regs := th.callRegs(block, c)
	if err := th.SetRegs(&regs); err != nil {
		return err
	}
	if err := th.toSyscallStop(); err != nil {
		return err
	}
	if atEntry != nil {
		if err := atEntry(); err != nil {
			return err
		}
	}
	if err := th.toSyscallStop(); err != nil {
		return err
	}
	regs, err := th.Thread.Regs()
	if err != nil {
		return err
	}
	c.Ret = callResult(&regs)
	return nil
}

func (th *Thread) toSyscallStop() error {
	var sig unix.Signal
	for {
		if err := th.ContToSyscall(sig); err != nil {
			return err
		}
		sig = 0
		s, err := th.Wait()
		if err != nil {
			return err
		}
		switch s.Kind {
		case ptrace.SyscallStop:
			return nil
		case ptrace.EventStop, ptrace.GroupStop:
			// A stop that was still due; it changes nothing.
		case ptrace.SignalStop:
			if th.place == placeInside {
				return fmt.Errorf("task %d: %v in a remote system call", th.TID, s)
			}
			sig = s.Signal
		default:
			return fmt.Errorf("task %d: %v in a remote system call", th.TID, s)
		}
	}
}
