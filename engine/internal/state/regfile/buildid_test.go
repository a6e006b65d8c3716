package regfile

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

// An ELF file has its build-id in a segment of notes, or, as Go writes it, in a section that no segment has.
func TestReadBuildID(t *testing.T) {
	id := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, tc := range []struct {
		name             string
		segment, section bool
		truncate         int
		want             []byte
	}{
		{name: "segment", segment: true, want: id},
		{name: "section", section: true, want: id},
		{name: "both", segment: true, section: true, want: id},
		{name: "none"},
		{name: "cut off", segment: true, section: true, truncate: 100},
		{name: "empty", truncate: 1 << 20},
	} {
		file := elf(id, tc.segment, tc.section)
		file = file[:max(0, len(file)-tc.truncate)]
		got, err := readBuildID(bytes.NewReader(file))
		if err != nil || !bytes.Equal(got, tc.want) {
			t.Errorf("%s: %x, %v; want %x", tc.name, got, err, tc.want)
		}
	}
}

// elf makes an ELF file with a note of another kind, and the build-id's.
func elf(id []byte, segment, section bool) []byte {
	const notesAt = elfHeader + 56 + 64
	le := binary.LittleEndian
	note := func(owner string, kind uint32, desc []byte) (b []byte) {
		b = le.AppendUint32(b, uint32(len(owner)))
		b = le.AppendUint32(b, uint32(len(desc)))
		b = le.AppendUint32(b, kind)
		return append(append(b, owner...), desc...)
	}
	notes := append(note("Go\x00\x00", 4, []byte("abcd")), note("GNU\x00", elfBuildID, id)...)
	b := make([]byte, notesAt)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint64(b[32:], elfHeader)
	le.PutUint64(b[40:], elfHeader+56)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 1)
	if segment {
		le.PutUint32(b[elfHeader:], elfNoteSegment)
	}
	le.PutUint64(b[elfHeader+8:], notesAt)
	le.PutUint64(b[elfHeader+32:], uint64(len(notes)))
	if section {
		le.PutUint32(b[elfHeader+56+4:], elfNoteSection)
	}
	le.PutUint64(b[elfHeader+56+24:], notesAt)
	le.PutUint64(b[elfHeader+56+32:], uint64(len(notes)))
	return append(b, notes...)
}

func FuzzReadBuildID(f *testing.F) {
	f.Add(elf([]byte{1, 2, 3, 4}, true, true))
	if self, err := os.ReadFile("/proc/self/exe"); err == nil {
		f.Add(self[:min(len(self), 4096)])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if id, err := readBuildID(bytes.NewReader(file)); err != nil || len(id) > maxBuildID {
			t.Errorf("%x, %v", id, err)
		}
	})
}
