package remote

import (
	"bytes"
	"encoding/binary"
	"time"

	"stasis.example/engine/internal/ptrace"
)

// In the middle of reading the clock
//
// The kernel's code in a process (vDSO) reads a counter, computes the time by what the kernel has written beside the code, looks
// whether that has changed meanwhile, begins again if it has, and last adds what the time namespace adds. A thread that is saved
// after that look and before the end gets a time that never was: the namespace that it is restored in adds something else. So
// a thread that stops there is let run on for a moment.
//
// It is not stepped out of there: a process whose tracer dies in the middle of a step is killed by SIGTRAP. And where there is no
// doubt that the code looks again, nothing needs to be done, as time will have gone on: that is where nearly all stops are,
// which come when the counter has been read.

const (
	// clockTries is how often a thread is let run on at most. A thread that does nothing but ask for the time is in the wrong place
	// at every tenth stop; with code that we do not understand at nearly every one, and it stays there.
	clockTries = 8
	// clockPause is how long it is let run, twice as long each time that it has not come to run at all.
	clockPause = 20 * time.Microsecond
	// maxVDSO bounds the code.
	maxVDSO = 1 << 16
)

// leaveClock sees to it that a thread does not stay stopped in the middle of reading the clock, as far as a few tries can. It may
// have done anything else meanwhile, so it is not for one that was frozen before: that must not have run.
func (th *Thread) leaveClock() error {
	pause := clockPause
	for try := 0; try < clockTries && th.Stop.Kind == ptrace.EventStop && !th.Early() && th.readsClock(); try++ {
		if err := th.Cont(0); err != nil {
			return err
		}
		th.p.kernel.Pause(int64(pause))
		if err := th.Interrupt(); err != nil {
			return err
		}
		s, err := th.Settle()
		if err != nil {
			return err
		}
		th.Stop = s
		before := th.Regs
		if err := th.note(); err != nil {
			return err
		}
		if th.Regs == before {
			pause *= 2
		}
	}
	return nil
}

// readsClock reports whether a thread is in the kernel's code, in no call, and may not look again whether it has the time right.
func (th *Thread) readsClock() bool {
	if int64(th.Regs.Orig_rax) >= 0 {
		return false // in a call, which code of the vDSO makes when it cannot help itself
	}
	p, pc := th.p, th.Regs.PC()
	if p.vdsoAt == 0 {
		p.vdsoAt = th.vdsoAt()
	}
	if pc < p.vdsoAt || pc >= p.vdsoAt+maxVDSO {
		return false
	}
	if p.vdso == nil {
		p.vdso = th.vdso(p.vdsoAt)
	}
	at := pc - p.vdsoAt
	return at < uint64(len(p.vdso)) && !looksAgain(p.vdso, int(at))
}

// vdsoAt returns where the program was told that the kernel's code is; nowhere is far from everything.
func (th *Thread) vdsoAt() uint64 {
	const wordSize, sysinfoHeader, nowhere = 8, 33, ^uint64(maxVDSO)
	words, err := th.Tracer().Proc().Process(th.TID).Auxv(wordSize)
	for i := 0; err == nil && i+1 < len(words); i += 2 {
		if words[i] == sysinfoHeader && words[i+1] != 0 {
			return words[i+1]
		}
	}
	return nowhere
}

// vdso reads the kernel's code.
func (th *Thread) vdso(at uint64) []byte {
	const (
		headerSize = 64 + 56 // of a 64-bit ELF file, and of its first segment, which is the code
		sizeAt     = 64 + 40
	)
	var header [headerSize]byte
	if err := th.p.kernel.ReadMemory(th.TID, at, header[:]); err != nil || !bytes.HasPrefix(header[:], []byte("\x7fELF\x02\x01")) {
		return []byte{}
	}
	code := make([]byte, min(binary.LittleEndian.Uint64(header[sizeAt:]), maxVDSO))
	if err := th.p.kernel.ReadMemory(th.TID, at, code); err != nil {
		return []byte{}
	}
	return code
}

// looksAgain reports whether code goes on, from an instruction on, to a jump back that comes behind the look whether the kernel's
// data have changed, without having looked yet: the counter is read before the instruction, and not far behind it, with room for the
// look, is a jump (jne) to before the reading of the counter.
func looksAgain(code []byte, at int) bool {
	const far, look = 128, 8
	from := max(0, at-far)
	read := max(bytes.LastIndex(code[from:at], []byte{0x0f, 0x31}), bytes.LastIndex(code[from:at], []byte{0x0f, 0x01, 0xf9})) // rdtsc, rdtscp
	if read < 0 {
		return false
	}
	read += from
	const short, long = 2, 6 // bytes of a jump
	for jump := at + look; jump+long <= min(at+far, len(code)); jump++ {
		to := read
		switch {
		case code[jump] == 0x75:
			to = jump + short + int(int8(code[jump+1]))
		case code[jump] == 0x0f && code[jump+1] == 0x85:
			to = jump + long + int(int32(binary.LittleEndian.Uint32(code[jump+2:])))
		}
		if to < read && to >= read-far {
			return true
		}
	}
	return false
}
