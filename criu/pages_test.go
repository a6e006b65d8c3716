package criu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// pagemapImage writes a page map as CRIU does: the head, then entries of numbers.
func pagemapImage(entries ...map[protowire.Number]uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x54564319)
	b = binary.LittleEndian.AppendUint32(b, pagemapMagic)
	for _, e := range entries {
		var m []byte
		for num := protowire.Number(1); num < 10; num++ {
			if v, ok := e[num]; ok {
				m = protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), v)
			}
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(m)))
		b = append(b, m...)
	}
	return b
}

type fields = map[protowire.Number]uint64

func TestDecodePagemap(t *testing.T) {
	head := fields{1: 7}
	for _, test := range []struct {
		name    string
		image   []byte
		pages   uint64
		unknown bool
	}{
		{"no pages", pagemapImage(head), 0, false},
		{"CRIU 4.2", pagemapImage(head, fields{1: 0x1000, 2: 0, 4: pagePresent, 5: 3}, fields{1: 0x9000, 2: 0, 4: pagePresent, 5: 2}), 5, false},
		{"before 4.2", pagemapImage(head, fields{1: 0x1000, 2: 3, 4: pagePresent}), 3, false},
		{"without flags", pagemapImage(head, fields{1: 0x1000, 2: 3}, fields{1: 0x9000, 2: 4, 3: 1}), 3, false},
		{"in the parent", pagemapImage(head, fields{1: 0x1000, 2: 3, 4: 1}), 0, false},
		{"lazy", pagemapImage(head, fields{1: 0x1000, 2: 3, 4: 2}), 0, false},
		{"unknown flag", pagemapImage(head, fields{1: 0x1000, 2: 3, 4: 1<<4 | pagePresent}), 0, true},
		{"unknown field", pagemapImage(head, fields{1: 0x1000, 2: 3, 6: 1}), 0, true},
		{"absurd count", pagemapImage(head, fields{1: 0x1000, 2: 1 << 60}), 0, true},
		{"empty", nil, 0, true},
		{"another image", []byte("12345678"), 0, true},
		{"cut", pagemapImage(head, fields{1: 0x1000, 2: 3})[:20], 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			id, pages, err := decodePagemap(bytes.NewReader(test.image))
			if (err != nil) != test.unknown {
				t.Fatalf("error %v", err)
			}
			if err == nil && (id != 7 || pages != test.pages) {
				t.Errorf("image %d, %d pages; want 7 and %d", id, pages, test.pages)
			}
		})
	}
}

// A pages image that is too short would make CRIU hang: the restore is refused before a peer is even started.
func TestRestoreRefusesShortPages(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	size := os.Getpagesize()
	write("pagemap-42.img", pagemapImage(fields{1: 1}, fields{1: 0x1000, 4: pagePresent, 5: 2}))
	write("pages-1.img", make([]byte, 2*size-1))
	client := New(&Swrk{Path: "/nonexistent/criu"})
	_, err := client.Restore(context.Background(), RestoreOptions{ImagesDir: dir})
	if err == nil || errors.Is(err, ErrConnect) || !strings.Contains(err.Error(), "pages-1.img is truncated") {
		t.Fatalf("Restore: %v", err)
	}
	write("pages-1.img", make([]byte, 2*size))
	if _, err = client.Restore(context.Background(), RestoreOptions{ImagesDir: dir}); !errors.Is(err, ErrConnect) {
		t.Fatalf("Restore of whole images: %v", err)
	}
}

// checker is a transport whose peer finds out by itself that pages are missing.
type checker struct{ *Swrk }

func (checker) ChecksPages() bool { return true }

// What the peer looks at, the client need not.
func TestPeerChecksPages(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pagemap-42.img"), pagemapImage(fields{1: 1}, fields{1: 0x1000, 4: pagePresent, 5: 2}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pages-1.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	client := New(checker{&Swrk{Path: "/nonexistent/criu"}})
	if _, err := client.Restore(context.Background(), RestoreOptions{ImagesDir: dir}); !errors.Is(err, ErrConnect) {
		t.Fatalf("Restore: %v", err)
	}
}

func FuzzPagemapLength(f *testing.F) {
	f.Add(pagemapImage(fields{1: 7}, fields{1: 0x1000, 4: pagePresent, 5: 3}))
	f.Add(pagemapImage(fields{1: 7}, fields{1: 0x1000, 2: 3, 3: 1})[:19])
	f.Fuzz(func(t *testing.T, image []byte) {
		if _, pages, err := decodePagemap(bytes.NewReader(image)); err == nil && pages > 1<<52 {
			t.Errorf("%d pages", pages)
		}
	})
}
