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
	elfNoteSegment   = 4
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
	at := binary.LittleEndian.Uint64(header[32:])
	size, n := binary.LittleEndian.Uint16(header[54:]), binary.LittleEndian.Uint16(header[56:])
	if size != elfProgramHeader || at > 1<<62 {
		return nil, nil
	}
	var ph [elfProgramHeader]byte
	for i := range n {
		if ok, err := readAt(f, ph[:], int64(at)+int64(i)*elfProgramHeader); !ok {
			return nil, err
		}
		offset, length := binary.LittleEndian.Uint64(ph[8:]), binary.LittleEndian.Uint64(ph[32:])
		if binary.LittleEndian.Uint32(ph[:]) != elfNoteSegment || offset > 1<<62 {
			continue
		}
		notes := make([]byte, min(length, maxNotes))
		if ok, err := readAt(f, notes, int64(offset)); err != nil {
			return nil, err
		} else if ok {
			if id := findBuildID(notes); id != nil {
				return id, nil
			}
		}
	}
	return nil, nil
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
