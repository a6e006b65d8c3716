//go:build amd64

package remote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/internal/proc"
)

// The scratch area is a mapping of ours in the process. It begins with a page that the blocks share:
//
//	0x00  scratchMagic
//	0x10  room for the head of a control message, so that the descriptor in it comes to lie in the first slot
//	0x20  descriptors of ours, 32 bits each, -1 for none: one that we have sent, the park socket, our end of it until
//	      we have taken it, then the slots that calls may use
//	0x40  number of blocks
//	0x48  length of the area
//
// Then come the blocks, one per thread, then for each thread a cell with a small table and some room for arguments, and
// at the end the table and the room of the thread that is driven by default.
type area struct {
	start, length uint64
	blocks        int
	cells         uint64 // offset
	table, data   uint64 // offsets
}

const (
	scratchMagic = "stasis scratch 1"
	blockMagic   = 0x316b636f6c627473 // "stblock1"

	pageSize  = 4096
	cellTable = 1024 // bytes, 16 entries
	cellSize  = 2048
	mainTable = 32 << 10 // bytes, 512 entries
	mainData  = 64 << 10

	// Descriptor slots, counted from 1.
	givenSlot = 1
	parkSlot  = 2
	otherSlot = 3
	// FirstSlot is the first descriptor slot that calls may use, LastSlot the last.
	FirstSlot = 4
	LastSlot  = blkSharedFdsLen

	sharedControl = 0x10
	sharedLength  = 0x48
)

// A block has to fit into its place.
const _ = uint(blkBlockSize - blkBlockEnd)

func layoutArea(threads int) area {
	a := area{blocks: threads}
	a.cells = roundUp(blkSharedFirst+uint64(threads)*blkBlockSize, pageSize)
	a.table = roundUp(a.cells+uint64(threads)*cellSize, pageSize)
	a.data = a.table + mainTable
	a.length = a.data + mainData
	return a
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

func (a *area) block(i int) uint64 { return a.start + blkSharedFirst + uint64(i)*blkBlockSize }
func (a *area) cell(i int) uint64  { return a.start + a.cells + uint64(i)*cellSize }
func (a *area) fd(slot int) uint64 { return a.start + blkSharedFds + 4*uint64(slot-1) }

// header returns the area's first words.
func (a *area) header() []byte {
	b := make([]byte, sharedLength+8)
	copy(b, scratchMagic)
	binary.LittleEndian.PutUint64(b[sharedLength:], a.length)
	for i := range blkSharedFdsLen {
		binary.LittleEndian.PutUint32(b[blkSharedFds+4*i:], ^uint32(0))
	}
	binary.LittleEndian.PutUint64(b[blkSharedBlocks:], uint64(a.blocks))
	return b
}

// isLeftover recognises a scratch area. The kernel never merges one with a neighbour, for its flags (see Enter).
func (p *Process) isLeftover(m *proc.Mapping) (bool, error) {
	if m.Perm != proc.PermRead|proc.PermWrite|proc.PermExec || m.Inode != 0 || m.Path != "" {
		return false, nil
	}
	var head [sharedLength + 8]byte
	if err := p.Read(m.Start, head[:]); err != nil {
		return false, err
	}
	return string(head[:16]) == scratchMagic && binary.LittleEndian.Uint64(head[sharedLength:]) == m.End-m.Start, nil
}

// isBusy tells whether a thread has not left a scratch area of a dead engine for good: a signal handler that runs on the
// way back may have been interrupted.
func (p *Process) isBusy(m Range) (bool, error) {
	b := make([]byte, m.size())
	if err := p.Read(m.Start, b); err != nil {
		return false, err
	}
	blocks := binary.LittleEndian.Uint64(b[blkSharedBlocks:])
	for i := range blocks {
		at := blkSharedFirst + i*blkBlockSize
		if at+blkBlockSize > m.size() {
			break
		}
		if binary.LittleEndian.Uint32(b[at+blkBusy:]) != 0 {
			return true, nil
		}
	}
	return false, nil
}

// oldBlock returns the address of the block of a dead engine that an instruction pointer lies in, 0 if it is in none.
func (p *Process) oldBlock(pc uint64) uint64 {
	for _, m := range p.Leftovers {
		if first := m.Start + blkSharedFirst; pc >= first && pc < m.End {
			return first + (pc-first)/blkBlockSize*blkBlockSize
		}
	}
	if pc >= p.bootAt && pc < p.bootAt+blkStateEnd && isBlock(p.bootFound) {
		return p.bootAt
	}
	return 0
}

// bootPlace finds room for the boot block: zeros that nothing uses, in memory that can be executed. The vDSO has them
// behind its code, up to the end of its last page. Where it has not enough, the tail of the last page of a private
// mapping of a file will do: the linker has put nothing there. What a dead engine has left there counts as zeros; it is
// put back all the same, as a thread that nobody has looked at may still return to it.
func (p *Process) bootPlace(maps []proc.Mapping) error {
	for _, wanted := range []func(*proc.Mapping) bool{
		func(m *proc.Mapping) bool { return m.Path == "[vdso]" },
		func(m *proc.Mapping) bool {
			return m.Perm == proc.PermRead|proc.PermExec && m.Inode != 0 && strings.HasPrefix(m.Path, "/")
		},
	} {
		for i := range maps {
			if !wanted(&maps[i]) {
				continue
			}
			if found, err := p.padding(maps[i].End); found || err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w: there is nowhere to put %d bytes of code: the vDSO and the program's code have no room to spare", ErrRefused, blkStateEnd)
}

// padding looks for enough unused bytes before the end of a mapping.
func (p *Process) padding(end uint64) (bool, error) {
	var page [pageSize]byte
	if err := p.Read(end-pageSize, page[:]); errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EIO) {
		return false, nil // the last page of a mapping may lie past the end of its file
	} else if err != nil {
		return false, err
	}
	at := roundUp(uint64(len(bytes.TrimRight(withoutBlock(page[:]), "\x00")))+1, bootAlign)
	if at+blkStateEnd > pageSize {
		return false, nil
	}
	p.bootAt = end - pageSize + at
	if p.bootFound = nil; len(bytes.Trim(page[at:at+blkStateEnd], "\x00")) > 0 {
		p.bootFound = bytes.Clone(page[at : at+blkStateEnd])
	}
	return true, nil
}

const bootAlign = 64

// withoutBlock returns a page with a boot block of a dead engine taken out.
func withoutBlock(page []byte) []byte {
	for at := 0; at+blkStateEnd <= len(page); at += bootAlign {
		if isBlock(page[at:]) {
			page = bytes.Clone(page)
			clear(page[at : at+blkStateEnd])
		}
	}
	return page
}

// isBlock recognises a block by its code and its mark.
func isBlock(b []byte) bool {
	return len(b) >= blkStateEnd && binary.LittleEndian.Uint64(b[blkMagic:]) == blockMagic && string(b[:blkMagic]) == blockCode[:blkMagic]
}

// margin is how far a mapping of ours is from all others.
const margin = 1 << 20

// holes returns what is free between mappings, from the highest addresses down, where there may be room for one of ours, and not
// where a stack may grow to.
func holes(maps []proc.Mapping) []Range {
	var all []Range
	for i := len(maps) - 1; i > 0; i-- {
		above, below := &maps[i], &maps[i-1]
		if above.Path == "[stack]" || above.Path == "[vsyscall]" || above.Start > maxUser {
			continue
		}
		if above.Start-below.End > 2*margin {
			all = append(all, Range{below.End, above.Start})
		}
	}
	return all
}

// hole finds a free range for a mapping of ours, apart from all others.
func (p *Process) hole(length uint64) (uint64, error) {
	for _, free := range p.holes {
		if free.size() >= length+2*margin {
			return (free.End - margin - length) &^ (pageSize - 1), nil
		}
	}
	return 0, fmt.Errorf("%w: there is no room for %d bytes in its address space", unix.ENOMEM, length)
}
