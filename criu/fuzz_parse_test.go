package criu

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func statsImage(which protowire.Number, fields map[protowire.Number]uint64) []byte {
	var inner []byte
	for n, v := range fields {
		inner = protowire.AppendVarint(protowire.AppendTag(inner, n, protowire.VarintType), v)
	}
	entry := protowire.AppendBytes(protowire.AppendTag(nil, which, protowire.BytesType), inner)
	b := binary.LittleEndian.AppendUint32(nil, serviceMagic)
	b = binary.LittleEndian.AppendUint32(b, statsMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entry)))
	return append(b, entry...)
}

func FuzzStats(f *testing.F) {
	whole := statsImage(1, map[protowire.Number]uint64{1: 10, 2: 20, 7: 1 << 40})
	f.Add(whole, 1)
	f.Add(whole, 2)
	f.Add(whole[:13], 1)
	f.Add([]byte{}, 1)
	f.Fuzz(func(t *testing.T, image []byte, which int) {
		entry, err := decodeStats(image, protowire.Number(which))
		if (err == nil) != (entry != nil) {
			t.Fatalf("%x: %v, %v", image, entry, err)
		}
	})
}

func FuzzLogTail(f *testing.F) {
	f.Add("(00.012345) Error (criu/files.c:12): Can't dump\n(00.2)   12: Error (a): b\nWarn (x): y\n")
	f.Add("Error (")
	f.Add("Error (criu/x.c:1): \x00\xff\n\n")
	f.Fuzz(func(t *testing.T, log string) {
		lines := errorLines(log)
		if len(lines) > logTailLines {
			t.Fatalf("%d lines", len(lines))
		}
		for _, l := range lines {
			if l == "" || strings.Contains(l, "\n") || !strings.Contains(log, l) {
				t.Fatalf("the line %q of %q", l, log)
			}
		}
	})
}

func TestErrorLines(t *testing.T) {
	const log = `(00.000010) Version: 4.2.1 (gitid 0)
(00.000100) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.001000) Warn  (criu/kerndat.c:2): just a warning
(00.002000)     42: Error (criu/files.c:3): Can't open a/Error (of mine): No such file
(00.002000)     42: Error (criu/files.c:3): Can't open a/Error (of mine): No such file
(00.002500) Error messages are not all errors
(00.003000) Error (criu/cr-dump.c:4): Dumping FAILED.
`
	got := errorLines(log)
	want := []string{"Can't open a/Error (of mine): No such file", "Dumping FAILED."}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", got, want)
	}
	if got := errorLines(strings.Repeat(log, 50)); len(got) != logTailLines {
		t.Errorf("%d lines of a long log", len(got))
	}
}

func TestStats(t *testing.T) {
	entry, err := decodeStats(statsImage(1, map[protowire.Number]uint64{2: 1234, 7: 5}), 1)
	if err != nil || entry[2] != 1234 || entry[7] != 5 {
		t.Errorf("%v, %v", entry, err)
	}
	whole := statsImage(2, map[protowire.Number]uint64{1: 2, 3: 4})
	if _, err := decodeStats(whole, 1); err == nil {
		t.Error("statistics of a restore were taken for a dump's")
	}
	for n := range whole {
		if _, err := decodeStats(whole[:n], 2); err == nil {
			t.Errorf("%d of %d bytes were enough", n, len(whole))
		}
	}
}

func FuzzTreePIDs(f *testing.F) {
	b := binary.LittleEndian.AppendUint32(nil, commonMagic)
	b = binary.LittleEndian.AppendUint32(b, pstreeMagic)
	for _, pid := range []uint64{4711, 12, 1 << 22} {
		entry := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), pid)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(entry))), entry...)
	}
	if got := decodeTreePIDs(b); !slices.Equal(got, []int{4711, 12, 1 << 22}) {
		f.Fatalf("the pids are %d", got)
	}
	f.Add(b)
	f.Add(b[:14])
	f.Fuzz(func(t *testing.T, image []byte) {
		for _, pid := range decodeTreePIDs(image) {
			if pid <= 0 || pid > 1<<22 {
				t.Fatalf("%x: pid %d", image, pid)
			}
		}
	})
}
