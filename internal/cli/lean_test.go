package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// What is mapped of a file for reading is given back, and comes back when it is read; what differs from the file stays.
func TestGiveBack(t *testing.T) {
	const size = 1 << 20
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, bytes.Repeat([]byte("a"), size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped := func(prot int) []byte {
		m, err := unix.Mmap(int(f.Fd()), 0, size, prot, unix.MAP_PRIVATE|unix.MAP_POPULATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Munmap(m); err != nil {
				t.Error(err)
			}
		})
		return m
	}
	clean, changed, writable := mapped(unix.PROT_READ), mapped(unix.PROT_READ|unix.PROT_WRITE), mapped(unix.PROT_READ|unix.PROT_WRITE)
	changed[1], writable[1] = 'b', 'c'
	if err := unix.Mprotect(changed, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, clean); n != size {
		t.Fatalf("of %d bytes %d are there at first", size, n)
	}
	giveBack()
	for _, m := range []struct {
		name   string
		memory []byte
		want   uint64
		second byte
	}{{"clean", clean, 0, 'a'}, {"changed", changed, size, 'b'}, {"writable", writable, size, 'c'}} {
		if n := resident(t, m.memory); n != m.want {
			t.Errorf("%s: %d bytes are there, want %d", m.name, n, m.want)
		}
		if m.memory[0] != 'a' || m.memory[1] != m.second {
			t.Errorf("%s: it is %q", m.name, m.memory[:2])
		}
	}
}

// resident is how much of a mapping is there.
func resident(t *testing.T, mapping []byte) (n uint64) {
	t.Helper()
	start := linux.AddressOf(mapping)
	if err := proc.New(linux.Proc{}).Process(os.Getpid()).Smaps(func(m *proc.Smap) error {
		if m.Start <= start && start < m.End {
			n = m.Rss
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}
