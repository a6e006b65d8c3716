package regfile

import (
	"encoding/binary"
	"errors"
	"io"
)

// What is to be known of ELF files, as elf(5) has it.
const (
	elfHeader      = 64 // of 64 bits; those of 32 are shorter, and the files are longer
	elfNoteSegment = 4  // PT_NOTE
	elfNoteSection = 7  // SHT_NOTE
	elfNoteHeader  = 12
	elfBuildID     = 3
	maxNotes       = 64 << 10 // bytes of one segment that are looked at
	maxBuildID     = 64       // bytes; linkers write 8, 16 or 20
)

// A headerTable is where an ELF file says what is where in it.
type headerTable struct {
	at                 uint64
	size, n            uint16
	want               uint16 // the size of an entry
	kind               uint32 // of an entry that is about notes
	typ, offset, bytes int    // where an entry has them
	long               bool   // the numbers have 64 bits
}

// headerTables returns the tables of program headers and of sections, none of what is no ELF file.
func headerTables(header []byte) []headerTable {
	le := binary.LittleEndian
	// Go's linker leaves the note out of the segment: then it is found by its section.
	switch string(header[:6]) {
	case "\x7fELF\x02\x01": // 64 bits
		return []headerTable{
			{le.Uint64(header[32:]), le.Uint16(header[54:]), le.Uint16(header[56:]), 56, elfNoteSegment, 0, 8, 32, true},
			{le.Uint64(header[40:]), le.Uint16(header[58:]), le.Uint16(header[60:]), 64, elfNoteSection, 4, 24, 32, true},
		}
	case "\x7fELF\x01\x01": // 32 bits
		return []headerTable{
			{uint64(le.Uint32(header[28:])), le.Uint16(header[42:]), le.Uint16(header[44:]), 32, elfNoteSegment, 0, 4, 16, false},
			{uint64(le.Uint32(header[32:])), le.Uint16(header[46:]), le.Uint16(header[48:]), 40, elfNoteSection, 4, 16, 20, false},
		}
	}
	return nil
}

func (t *headerTable) number(entry []byte, at int) uint64 {
	if t.long {
		return binary.LittleEndian.Uint64(entry[at:])
	}
	return uint64(binary.LittleEndian.Uint32(entry[at:]))
}

// readBuildID returns the build-id of an ELF file, nil of one that has none or is something else.
func readBuildID(f io.ReaderAt) ([]byte, error) {
	var header [elfHeader]byte
	if ok, err := readAt(f, header[:], 0); !ok {
		return nil, err
	}
	for _, table := range headerTables(header[:]) {
		if table.size != table.want || table.at > 1<<62 {
			continue
		}
		entry := make([]byte, table.size)
		for i := range table.n {
			if ok, err := readAt(f, entry, int64(table.at)+int64(i)*int64(table.size)); err != nil {
				return nil, err
			} else if !ok {
				break
			}
			if binary.LittleEndian.Uint32(entry[table.typ:]) != table.kind {
				continue
			}
			id, err := readNotes(f, table.number(entry, table.offset), table.number(entry, table.bytes))
			if err != nil || id != nil {
				return id, err
			}
		}
	}
	return nil, nil
}

// readNotes looks for a build-id in some notes.
func readNotes(f io.ReaderAt, offset, length uint64) ([]byte, error) {
	if offset > 1<<62 {
		return nil, nil
	}
	notes := make([]byte, min(length, maxNotes))
	ok, err := readAt(f, notes, int64(offset))
	if !ok {
		return nil, err
	}
	return findBuildID(notes), nil
}

// readAt fills b, and reports whether the file is long enough.
func readAt(f io.ReaderAt, b []byte, at int64) (bool, error) {
	_, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return err == nil, err
}

func findBuildID(notes []byte) []byte {
	for len(notes) >= elfNoteHeader {
		name, desc := uint64(binary.LittleEndian.Uint32(notes)), uint64(binary.LittleEndian.Uint32(notes[4:]))
		kind := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[elfNoteHeader:]
		paddedName, paddedDesc := (name+3)&^3, (desc+3)&^3
		if paddedName+desc > uint64(len(notes)) {
			return nil
		}
		if kind == elfBuildID && string(notes[:name]) == "GNU\x00" && desc > 0 && desc <= maxBuildID {
			return notes[paddedName:][:desc:desc]
		}
		notes = notes[min(paddedName+paddedDesc, uint64(len(notes))):]
	}
	return nil
}
