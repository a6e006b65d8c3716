//go:build amd64

package regfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// What a name was of when it was looked at is what is opened, and is so for each of those that have the name one after the other: with
// flags and an offset of its own.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, []byte("first"), 0o600), os.WriteFile(file+"2", []byte("second"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var n Names
	defer n.Close()
	open := func(name string, flags uint32, pos uint64, want string) {
		t.Helper()
		mode := uint32(unix.S_IFREG | 0o600)
		f, err := n.Open(&apply.Files{Root: root}, &snapshot.Regular{Path: snapshot.Path{Name: name}, Mode: &mode, Pos: pos}, flags)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		defer f.Close()
		if got, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || uint32(got) != flags|largeFile {
			t.Errorf("%s: flags %#o, %v, want %#o", name, got, err, flags)
		}
		if on, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || on&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: it is not close-on-exec (%v)", name, err)
		}
		text := make([]byte, 10)
		if got, err := unix.Read(int(f.Fd()), text); err != nil || string(text[:got]) != want {
			t.Errorf("%s: %q, %v, want %q", name, text[:max(got, 0)], err, want)
		}
	}
	open("/file", unix.O_RDONLY, 0, "first")
	open("/file", unix.O_RDWR|unix.O_APPEND, 2, "rst")
	open("/file", unix.O_RDONLY|unix.O_NONBLOCK, 4, "t")
	if err := os.Rename(file+"2", file); err != nil {
		t.Fatal(err)
	}
	open("/file", unix.O_RDONLY, 0, "first") // which is held
	open("/file", unix.O_RDONLY|unix.O_NOFOLLOW, 0, "second")
	open("/file", unix.O_RDONLY, 0, "second")
	mode := uint32(unix.S_IFREG | 0o600)
	if f, err := n.Open(&apply.Files{Root: root}, &snapshot.Regular{Path: snapshot.Path{Name: "/file2"}, Mode: &mode}, unix.O_RDONLY); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file whose name is gone: %v, %v", f, err)
	}
}

// largeFile is a flag that all files have that were opened by name.
const largeFile = 0o100000
