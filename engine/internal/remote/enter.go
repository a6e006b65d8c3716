//go:build amd64

package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/ptrace"
)

// Enter makes the process ready to make calls: the boot block in place, the scratch area mapped, the park socket made
// and its other end ours. When it fails, Release is due all the same.
//
// Where several processes share an address space, the one that the others have joined enters for all of them.
func (p *Process) Enter() error {
	if p.host.boot != 0 && p.host != p {
		return nil
	}
	if err := p.host.enter(); err != nil {
		return fmt.Errorf("enter process %d: %w", p.PID, err)
	}
	return nil
}

func (p *Process) enter() error {
	first := p.Threads[0]
	area := layoutArea(len(p.inSpace()))
	hole, err := p.hole(area.length)
	if err != nil {
		return err
	}
	boot := p.bootAt
	area.start, p.boot = hole, boot
	if err := p.kernel.ForceMemory(first.TID, boot, first.bootBytes(&area)); err != nil {
		return fmt.Errorf("write the boot block: %w", err)
	}
	if err := first.toBlock(boot); err != nil {
		return err
	}
	// First, so that never more than one scratch area stays behind.
	for _, m := range p.Leftovers {
		if busy, err := p.isBusy(m); err != nil || busy {
			if err != nil {
				return err
			}
			continue
		}
		munmap := NewCall(unix.SYS_MUNMAP, m.Start, m.size())
		if err := first.single(boot, &munmap, nil); err != nil {
			return err
		}
		if err := munmap.fail(); err != nil {
			return err
		}
	}
	mmap := NewCall(unix.SYS_MMAP, hole, area.length, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uint64(0), 0)
	p.area = area // to be unmapped from now on; nothing else can be there while the process is stopped
	if err := first.single(boot, &mmap, nil); err != nil {
		return err
	}
	if mmap.Ret != hole {
		p.area.start = 0
		if err := mmap.fail(); err != nil {
			return err
		}
		// Before Linux 4.17, which takes the flag for a hint.
		p.area.start = mmap.Ret
		return fmt.Errorf("%w: mmap put the scratch area at %#x, not at %#x", ErrRefused, mmap.Ret, hole)
	}
	if err := p.writeBlocks(); err != nil {
		return err
	}
	if err := first.toBlock(area.block(0)); err != nil {
		return err
	}
	return p.openPark()
}

// writeBlocks fills the scratch area. The first thread's block says that it is inside: it is at the boot block still,
// which does not ask.
func (p *Process) writeBlocks() error {
	threads := p.inSpace()
	b := p.Threads[0].Tracer().Room(blkSharedFirst + len(threads)*blkBlockSize)
	shared, blocks := b[:blkSharedFirst], b[blkSharedFirst:]
	clear(shared[copy(shared, p.area.header()):])
	for i, th := range threads {
		th.putBlock(blocks[i*blkBlockSize:][:blkBlockSize], i == 0)
	}
	p.Threads[0].inside = true
	return p.Write(p.area.start, b)
}

// openPark makes the park socket. The kernel writes the two descriptors where the way back closes them, so that there
// is no instant at which they exist and are not noted.
func (p *Process) openPark() error {
	first := p.Threads[0]
	pair := NewCall(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0, p.area.fd(parkSlot))
	if err := first.single(first.block, &pair, nil); err != nil {
		return err
	}
	if pair.Err() != nil {
		// No descriptor to be had, or a rule against sockets: calls are made one by one then.
		return p.markArea()
	}
	var fds [8]byte
	if err := p.Read(p.area.fd(parkSlot), fds[:]); err != nil {
		return err
	}
	other := binary.LittleEndian.Uint32(fds[4:])
	sock, err := p.kernel.TakeFile(p.Live(), int(other))
	if err != nil {
		return err
	}
	p.sock = sock
	// A word to it, not a copy of its own end, must be the end of the file.
	closing := Call{Nr: unix.SYS_CLOSE, Slot: otherSlot, Args: [6]uint64{uint64(other)}}
	return p.markArea(closing)
}

// markArea keeps the scratch area apart from its neighbours, out of core dumps and out of children, in case that it
// stays behind. Other calls may come before.
func (p *Process) markArea(before ...Call) error {
	calls := append(before,
		NewCall(unix.SYS_MADVISE, p.area.start, p.area.length, unix.MADV_DONTFORK),
		NewCall(unix.SYS_MADVISE, p.area.start, p.area.length, unix.MADV_DONTDUMP),
	)
	if err := p.Run(calls); err != nil {
		return err
	}
	return Must(calls)
}

// toBlock puts a stopped thread into a block. One that comes from the program is put at the door, first with its own
// mask, which is safe there, and then with all signals blocked, which is safe because of the registers.
func (th *Thread) toBlock(block uint64) error {
	if th.place == placeInside {
		// From one block to another. It may be at the exit from a call, where the kernel would not settle what becomes
		// of the interrupted one, so the door would not do.
		regs := th.codeRegs(block + blkRestart)
		if err := th.SetRegs(&regs); err != nil {
			return err
		}
		th.block = block
		return nil
	}
	regs := th.doorRegs(block)
	if err := th.SetRegs(&regs); err != nil {
		return err
	}
	th.block, th.place = block, placeDoor
	if err := th.SetSigmask(^uint64(0)); err != nil {
		return err
	}
	th.place = placeInside
	return nil
}

// enter makes sure that the thread is stopped inside its block in the scratch area, and may use the descriptors.
func (th *Thread) enter() error {
	if !th.Stopped() {
		if err := th.halt(); err != nil {
			return err
		}
	}
	if block := th.p.host.area.block(th.index); th.block != block {
		if err := th.toBlock(block); err != nil {
			return err
		}
	}
	if th.inside {
		return nil
	}
	if err := th.p.Write(th.block+blkInside, th.insideWords(1)); err != nil {
		return err
	}
	th.inside = true
	return nil
}

// halt brings a thread to an event stop.
func (th *Thread) halt() error {
	if th.p.active == th {
		th.p.active = nil
	}
	return th.Halt()
}

// back puts a thread's own mask and registers back: by way of the door, where either mask will do.
func (th *Thread) back() error {
	if th.place == placeOwn {
		return nil
	}
	if err := th.halt(); err != nil {
		return err
	}
	regs := th.doorRegs(th.block)
	if err := th.SetRegs(&regs); err != nil {
		return err
	}
	if th.inside && th.block != th.p.host.boot {
		if err := th.p.Write(th.block+blkInside, th.insideWords(0)); err != nil {
			return err
		}
		th.inside = false
	}
	if err := th.SetSigmask(th.Mask); err != nil {
		return err
	}
	th.place = placeDoor
	if err := th.SetRegs(&th.Regs); err != nil {
		return err
	}
	th.place = placeOwn
	return nil
}

// releasePatience bounds the way out, which does not end with the context.
const releasePatience = 30 * time.Second

// wayOut runs a function that puts things back, which must go on when the tracer's context has ended.
func wayOut(t *ptrace.Tracer, f func() error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), releasePatience)
	defer cancel()
	return t.WithContext(ctx, f)
}

// Release puts everything back and lets the process go on: running, or stopped when it was found stopped. It does as
// much as it can whatever fails; the process itself does the rest.
func (p *Process) Release() error { return p.release(p.letGo) }

// Restore is Release without the last step: the threads stay stopped, in their own state, until LetGo.
func (p *Process) Restore() error { return p.release(func() error { return nil }) }

// Abandon lets go of what is ours of a process that was killed.
func (p *Process) Abandon() {
	if p.sock >= 0 {
		_ = unix.Close(p.sock)
		p.sock = -1
	}
}

// LetGo lets the threads of a process that Restore has put back go on.
func (p *Process) LetGo() error { return wayOut(p.Threads[0].Tracer(), p.letGo) }

func (p *Process) release(last func() error) error {
	if len(p.Threads) == 0 {
		return nil
	}
	err := wayOut(p.Threads[0].Tracer(), func() error { return errors.Join(p.leave(), last()) })
	p.Abandon()
	if err != nil {
		return fmt.Errorf("release process %d: %w", p.PID, err)
	}
	return nil
}

// leave takes the threads out of their blocks, and what is ours out of the process, or out of all those that share its
// memory: none of them runs on before nothing is left. A thread that cannot be taken out is left to itself, and with it
// the scratch area, on which it stands.
func (p *Process) leave() error {
	if p.host != p {
		return p.host.leave()
	}
	var errs []error
	// Nobody has to be put back who is not there any more.
	take := func(step func() error) error {
		err := twice(step)
		if err != nil && !gone(err) {
			errs = append(errs, err)
		}
		return err
	}
	first, empty := p.Threads[0], true
	for _, th := range p.inSpace()[1:] {
		if err := take(th.back); err != nil && !gone(err) {
			empty = false
		}
	}
	if p.boot != 0 && p.area.start != 0 && empty {
		_ = take(func() error { return p.unmap(first) })
	}
	err := take(first.back)
	if err == nil && p.boot != 0 {
		err = take(func() error { return p.unboot(first) })
	}
	if empty && (gone(err) || err != nil && first.dead()) {
		for _, heir := range p.heirs() {
			if p.boot != 0 {
				_ = take(func() error { return p.inherit(heir) })
			}
		}
	}
	return errors.Join(errs...)
}

func gone(err error) bool { return errors.Is(err, ptrace.ErrGone) || errors.Is(err, unix.ESRCH) }

// twice tries a step of the way out once more when it fails: each can be taken again from wherever it failed.
func twice(step func() error) error {
	if step() == nil {
		return nil
	}
	return step()
}

// unmap lets a thread, the first, close the descriptors, from its block, and unmap the scratch area, from the boot block.
func (p *Process) unmap(th *Thread) error {
	if err := th.halt(); err != nil {
		return err
	}
	if th.p == p || th.p.sameFiles {
		if err := p.closeSlots(th); err != nil {
			return err
		}
	}
	th.block = p.boot
	munmap := NewCall(unix.SYS_MUNMAP, p.area.start, p.area.length)
	if err := th.single(p.boot, &munmap, nil); err != nil {
		return err
	}
	if err := munmap.fail(); err != nil {
		return err
	}
	p.area = area{}
	th.inside = false
	return nil
}

// unboot puts back what was found where the boot block is.
func (p *Process) unboot(th *Thread) error {
	found := p.bootFound
	if found == nil {
		found = th.Tracer().Room(blkStateEnd)
		clear(found)
	}
	if err := p.kernel.ForceMemory(th.TID, p.boot, found); err != nil {
		return err
	}
	p.boot = 0
	return nil
}

// inherit lets a thread of a guest take out what a host that was killed has left in their memory. Nobody can go back by
// the host's boot block any more, so it becomes the heir's.
func (p *Process) inherit(heir *Thread) error {
	if p.area.start != 0 {
		if err := p.kernel.ForceMemory(heir.TID, p.boot, heir.bootBytes(&p.area)); err != nil {
			return err
		}
		if err := heir.toBlock(p.boot); err != nil {
			return err
		}
		if err := p.unmap(heir); err != nil {
			return err
		}
	}
	for heir.place == placeInside && heir.p.sameFiles && len(p.closing) > 0 {
		// Nobody has run since, so nobody else has got the number if it is closed already.
		closing := NewCall(unix.SYS_CLOSE, uint64(p.closing[0]))
		if err := heir.single(p.boot, &closing, nil); err != nil {
			return err
		}
		p.closing = p.closing[1:]
	}
	if err := heir.back(); err != nil {
		return err
	}
	return p.unboot(heir)
}

// closeSlots closes the descriptors of ours that are left, the park socket among them.
func (p *Process) closeSlots(th *Thread) error {
	var head [blkSharedFds + 4*blkSharedFdsLen]byte
	switch err := th.p.Read(p.area.start, head[:]); {
	case errors.Is(err, unix.EFAULT):
		return nil // the area was not made
	case err != nil:
		return err
	case string(head[:len(scratchMagic)]) != scratchMagic:
		return nil // nothing is in it
	}
	for slot := 1; slot <= blkSharedFdsLen; slot++ {
		fd := binary.LittleEndian.Uint32(head[blkSharedFds+4*(slot-1):])
		if int32(fd) < 0 {
			continue
		}
		// Taken off the list when the call can no longer be kept from being made.
		off := func() error {
			p.closing = append(p.closing, fd)
			return th.p.Write(p.area.fd(slot), []byte{0xff, 0xff, 0xff, 0xff})
		}
		closing := NewCall(unix.SYS_CLOSE, uint64(fd))
		if err := th.single(th.block, &closing, off); err != nil {
			return err
		}
	}
	return nil
}
