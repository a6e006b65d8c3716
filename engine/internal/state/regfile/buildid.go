package regfile

import (
	"encoding/binary"
	"errors"
	"io"
)

// What is to be known of ELF files of 64 bits, as elf(5) has it.
const (
	elfHeader        = 64
	elfProgramHeader = 56
	elfSectionHeader = 64
	elfNoteSegment   = 4 // PT_NOTE
	elfNoteSection   = 7 // SHT_NOTE
	elfNoteHeader    = 12
	elfBuildID       = 3
	maxNotes         = 64 << 10 // bytes of one segment that are looked at
	maxBuildID       = 64       // bytes; linkers write 8, 16 or 20
)

// readBuildID returns the build-id of an ELF file, nil of one that has none or is something else.
func readBuildID(f io.ReaderAt) ([]byte, error) {
	var header [elfHeader]byte
	if ok, err := readAt(f, header[:], 0); !ok {
		return nil, err
	}
	if string(header[:6]) != "\x7fELF\x02\x01" {
		return nil, nil
	}
	le := binary.LittleEndian
	for _, table := range []struct {
		at           uint64
		size, n      uint16
		want         uint16
		kind         uint32
		typ, off, sz int // where an entry has them
	}{
		{le.Uint64(header[32:]), le.Uint16(header[54:]), le.Uint16(header[56:]), elfProgramHeader, elfNoteSegment, 0, 8, 32},
		// Go's linker leaves the note out of the segment: then it is found by its section.
		{le.Uint64(header[40:]), le.Uint16(header[58:]), le.Uint16(header[60:]), elfSectionHeader, elfNoteSection, 4, 24, 32},
	} {
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
			if le.Uint32(entry[table.typ:]) != table.kind {
				continue
			}
			id, err := readNotes(f, le.Uint64(entry[table.off:]), le.Uint64(entry[table.sz:]))
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
