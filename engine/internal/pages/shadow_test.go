//go:build amd64

package pages

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/testkit"
)

// shadowed makes an image of n pages in a directory, and its shadow, or nil.
func shadowed(t *testing.T, dir string, n int64) (*os.File, *shadow) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(dir, "pages"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(n * Size); err != nil {
		t.Fatal(err)
	}
	s := newShadow(&linux.Kernel{}, int(file.Fd()), n*Size)
	if s != nil {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return file, s
}

// needsShadow returns the shadow of an image in memory.
func needsShadow(t *testing.T, dir string, n int64) (*os.File, *shadow) {
	t.Helper()
	file, s := shadowed(t, dir, n)
	testkit.Need(t, testkit.Feature("a userfaultfd for files in memory", func() error {
		if s == nil {
			return errors.ErrUnsupported
		}
		return nil
	}))
	return file, s
}

// What is put into a shadow is in the file, beside what others write.
func TestShadow(t *testing.T) {
	const n = 64
	file, s := needsShadow(t, testkit.MemoryDir(t), n)
	want := make([]byte, n*Size)
	_, _ = rand.Read(want)
	for at := int64(0); at < n; at += 16 {
		write := s.WriteAt
		if at == 16 {
			write = file.WriteAt
		}
		if _, err := write(want[at*Size:(at+16)*Size], at*Size); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has something else (%v)", err)
	}
}

// Pages that the file has are never written over, and the error says so: whoever put them there may be right.
func TestShadowOfWhatIsThere(t *testing.T) {
	file, s := needsShadow(t, testkit.MemoryDir(t), 4)
	page := bytes.Repeat([]byte("theirs.."), Size/8)
	if _, err := file.WriteAt(page, 2*Size); err != nil {
		t.Fatal(err)
	}
	n, err := s.WriteAt(make([]byte, 4*Size), 0)
	if n != 2*Size || !errors.Is(err, unix.EEXIST) {
		t.Errorf("%d bytes, %v", n, err)
	}
	got := make([]byte, Size)
	if _, err := file.ReadAt(got, 2*Size); err != nil || !bytes.Equal(got, page) {
		t.Errorf("the page was written over (%v)", err)
	}
}

// A file system that is full makes an error, not a signal.
func TestShadowOnFullDisk(t *testing.T) {
	testkit.Need(t, testkit.Root)
	_, s := needsShadow(t, testkit.FullDisk(t), 64)
	if n, err := s.WriteAt(make([]byte, 64*Size), 0); err == nil || n > 16*Size {
		t.Errorf("%d bytes are on a disk that has no room (%v)", n, err)
	}
}

// A disk has no shadows.
func TestShadowOnDisk(t *testing.T) {
	if _, s := shadowed(t, testkit.DiskDir(t), 4); s != nil {
		t.Error("there is one")
	}
}
