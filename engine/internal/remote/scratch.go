package remote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// The scratch area is a mapping of ours in the process. It begins with a page that the blocks share:
//
//	0x00  scratchMagic
//	0x10  length of the area
//	0x20  descriptors of ours, 32 bits each, -1 for none: the park socket, our end of it until we have taken it,
//	      then the slots that calls may use
//	0x40  number of blocks
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

	parkSlot  = 0 // index among the descriptors
	otherSlot = 1
	// FirstSlot is the first descriptor slot that calls may use, LastSlot the last.
	FirstSlot = 3
	LastSlot  = blkSharedFdsLen
)

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
func (a *area) fd(slot int) uint64 { return a.start + blkSharedFds + 4*uint64(slot) }

// header returns the area's first words.
func (a *area) header() []byte {
	b := make([]byte, 0x48)
	copy(b, scratchMagic)
	binary.LittleEndian.PutUint64(b[0x10:], a.length)
	for i := range blkSharedFdsLen {
		binary.LittleEndian.PutUint32(b[blkSharedFds+4*i:], ^uint32(0))
	}
	binary.LittleEndian.PutUint64(b[blkSharedBlocks:], uint64(a.blocks))
	return b
}

// sortMappings sorts out what dead engines have left.
func (p *Process) sortMappings(maps []Mapping) error {
	for _, m := range maps {
		left, err := p.isLeftover(m)
		if err != nil {
			return err
		}
		if left {
			p.Leftovers = append(p.Leftovers, m)
		} else {
			p.Mappings = append(p.Mappings, m)
		}
	}
	return nil
}

// isLeftover recognises a scratch area. The kernel never merges one with a neighbour, for its flags (see Enter).
func (p *Process) isLeftover(m Mapping) (bool, error) {
	if m.Perms != "rwxp" || m.Inode != 0 || m.Path != "" {
		return false, nil
	}
	var head [0x18]byte
	if err := p.Read(m.Start, head[:]); err != nil {
		return false, err
	}
	return string(head[:16]) == scratchMagic && binary.LittleEndian.Uint64(head[16:]) == m.size(), nil
}

// bootPlace finds room for the boot block: zeros that nothing uses, in memory that can be executed. The vDSO has them
// behind its code, up to the end of its last page. Where it has not enough, the tail of the last page of a private
// mapping of a file will do: the linker has put nothing there. What a dead engine has left there counts as zeros.
func (p *Process) bootPlace() (uint64, error) {
	for _, wanted := range []func(Mapping) bool{
		func(m Mapping) bool { return m.Path == "[vdso]" },
		func(m Mapping) bool { return m.Perms == "r-xp" && m.Inode != 0 && strings.HasPrefix(m.Path, "/") },
	} {
		for _, m := range p.Mappings {
			if !wanted(m) {
				continue
			}
			addr, err := p.padding(m)
			if err != nil {
				return 0, err
			}
			if addr != 0 {
				return addr, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: there is nowhere to put %d bytes of code: the vDSO and the program's code have no room to spare", ErrRefused, blkStateEnd)
}

// padding returns the address of enough unused bytes at the end of a mapping, 0 when there are not enough.
func (p *Process) padding(m Mapping) (uint64, error) {
	var page [pageSize]byte
	if err := p.Read(m.End-pageSize, page[:]); err != nil {
		// The last page of a mapping may lie past the end of the file.
		return 0, nil //nolint:nilerr // then there is no room in it
	}
	at := roundUp(uint64(len(bytes.TrimRight(p.withoutBlock(page[:]), "\x00")))+1, 64)
	if at+blkStateEnd > pageSize {
		return 0, nil
	}
	return m.End - pageSize + at, nil
}

// withoutBlock returns a page with a boot block of a dead engine taken out.
func (p *Process) withoutBlock(page []byte) []byte {
	for at := 0; at+blkStateEnd <= len(page); at += 64 {
		if binary.LittleEndian.Uint64(page[at+blkMagic:]) == blockMagic && bytes.Equal(page[at:at+blkDoorEnd], []byte(blockCode[:blkDoorEnd])) {
			page = bytes.Clone(page)
			clear(page[at : at+blkStateEnd])
		}
	}
	return page
}

// blkDoorEnd is how much of the code is compared to recognise a block.
const blkDoorEnd = blkMagic

// hole finds a free range for a mapping of ours, apart from all others, and not where a stack may grow to.
func (p *Process) hole(length uint64) (uint64, error) {
	const margin = 1 << 20
	maps := p.Mappings
	for i := len(maps) - 1; i > 0; i-- {
		above, below := maps[i], maps[i-1]
		if above.Path == "[stack]" || above.Path == "[vsyscall]" || above.Start > maxUser {
			continue
		}
		if overlapsAny(p.Leftovers, below.End, above.Start) {
			continue
		}
		if above.Start-below.End >= length+2*margin {
			return (above.Start - margin - length) &^ (pageSize - 1), nil
		}
	}
	return 0, fmt.Errorf("%w: there is no room for %d bytes in its address space", unix.ENOMEM, length)
}

func overlapsAny(maps []Mapping, start, end uint64) bool {
	for _, m := range maps {
		if m.Start < end && start < m.End {
			return true
		}
	}
	return false
}
