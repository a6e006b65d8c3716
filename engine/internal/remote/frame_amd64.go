package remote

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A handler that runs on the way back of a dead engine returns to the block that it was called from. The boot block has one place,
// which the next engine needs: with another state in it the handler would return to that state, and so to itself, for ever. So
// what the block would do is written into the handler's frame, which then returns to the program. It is what would have come of it
// anyway, and may be done at any instant.

// A frame of a signal handler, as the kernel lays it out (arch/x86/include/asm/sigframe.h, struct rt_sigframe).
const (
	frameRegs    = 48  // uc_mcontext
	frameSp      = 168 // in it
	frameIP      = 176
	frameFlags   = 184
	frameSegment = 192 // cs, gs, fs, ss
	frameSigmask = 304 // uc_sigmask
	frameLength  = 312 // of what is looked at
	frameReach   = 32 << 10
	redZone      = 128
)

// frameState says which word of a block's state goes to which register in a frame.
var frameState = [...]struct{ at, from int }{
	{frameRegs, blkR8}, {frameRegs + 8, blkR9}, {frameRegs + 16, blkR10}, {frameRegs + 24, blkR11}, {frameRegs + 32, blkR12},
	{frameRegs + 40, blkR13}, {frameRegs + 48, blkR14}, {frameRegs + 56, blkR15}, {frameRegs + 64, blkDi}, {frameRegs + 72, blkSi},
	{frameRegs + 80, blkBp}, {frameRegs + 88, blkBx}, {frameRegs + 96, blkDx}, {frameRegs + 112, blkCx}, {frameSp, blkSp},
	{frameFlags, blkFlags}, {frameSigmask, blkMask},
}

// Registers in a frame that say where the way back stands.
const (
	frameR15 = frameRegs + 56
	frameAx  = frameRegs + 104
	frameCx  = frameRegs + 112
)

// freeBootPlace finds the frame of a handler that a thread is in and that would return to the boot block of a dead engine, and lets
// it return to the program.
func (th *Thread) freeBootPlace() error {
	state := th.p.bootFound
	if !isBlock(state) {
		return nil
	}
	sp, back := th.Regs.Rsp, binary.LittleEndian.Uint64(state[blkSp:])
	// The frame is below what the block takes for the stack; or, where handlers have a stack of their own, on that, on which the
	// thread then is.
	for _, r := range []Range{{max(sp, back-redZone-frameReach), back}, {sp, sp + frameReach}} {
		if r.Start >= r.End {
			continue
		}
		if found, err := th.unlinkFrame(r, state); found || err != nil {
			return err
		}
	}
	return nil
}

// unlinkFrame looks for the frame in a range.
func (th *Thread) unlinkFrame(r Range, state []byte) (found bool, err error) {
	start := r.Start &^ 7
	stack, err := th.readUpTo(start, r.End+frameLength-start)
	if err != nil {
		return false, err
	}
	for at := 0; at+frameLength <= len(stack) && start+uint64(at) < r.End; at += 8 {
		frame := stack[at : at+frameLength]
		restart, ok := th.returnsToBlock(frame, state)
		if !ok {
			continue
		}
		if err := th.writeFrame(start+uint64(at), frame, state, restart); err != nil {
			return true, fmt.Errorf("task %d: the frame of the signal handler at %#x: %w", th.TID, start+uint64(at), err)
		}
		return true, nil
	}
	return false, nil
}

// readUpTo reads memory as far as there is any.
func (th *Thread) readUpTo(start, length uint64) ([]byte, error) {
	buf := make([]byte, length)
	for n := uint64(0); n < length; {
		part := min(length-n, pageSize-(start+n)%pageSize)
		if err := th.p.Read(start+n, buf[n:n+part]); errors.Is(err, unix.EFAULT) {
			return buf[:n], nil
		} else if err != nil {
			return nil, err
		}
		n += part
	}
	return buf, nil
}

// returnsToBlock reports whether a frame is one that returns to the boot block, and whether the block would restart the interrupted
// call then. Signals are let in at the door, in the window, and after the last change of the mask.
func (th *Thread) returnsToBlock(frame, state []byte) (restart, ok bool) {
	get := func(at int) uint64 { return binary.LittleEndian.Uint64(frame[at:]) }
	const userCode64 = 0x33
	if get(frameSp) != binary.LittleEndian.Uint64(state[blkSp:]) || binary.LittleEndian.Uint16(frame[frameSegment:]) != userCode64 {
		return false, false
	}
	switch at := get(frameIP) - th.p.bootAt; {
	case at == blkDoor, at >= blkToRestart && at < blkCodeEnd:
		return true, true
	case at == blkDoor+2, at == blkAsked, at >= blkToReturn && at < blkToRestart:
		return false, true
	case at >= blkSettled && at <= blkChosen:
		return get(frameR15) == 0, true
	case at > blkChosen && at < blkToReturn:
		return get(frameCx) == 0, true
	}
	return false, false
}

// writeFrame writes into a frame what the block would do: at once, for a kernel that copies so few pages looks at no signal meanwhile.
func (th *Thread) writeFrame(at uint64, frame, state []byte, restart bool) error {
	ip, ax := blkIpReturn, blkAxReturn
	if restart {
		ip, ax = blkIpRestart, blkAxRestart
	}
	for _, f := range frameState {
		copy(frame[f.at:][:8], state[f.from:])
	}
	copy(frame[frameIP:][:8], state[ip:])
	copy(frame[frameAx:][:8], state[ax:])
	return th.p.Write(at, frame)
}
