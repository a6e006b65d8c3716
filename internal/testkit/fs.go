package testkit

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// MemoryDir returns a directory of the test's own on tmpfs, removed after the test.
func MemoryDir(t testing.TB) string {
	t.Helper()
	return tempDir(t, "/dev/shm")
}

// DiskDir returns a directory of the test's own on the file system of the checkout, removed after the test.
// t.TempDir's may be on either kind.
func DiskDir(t testing.TB) string {
	t.Helper()
	parent := toolPath("tmp")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	return tempDir(t, parent)
}

func tempDir(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "stasis-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// FullDisk returns a directory on a small file system of its own, on which there is no room for any content. It is for tests that run
// as root.
func FullDisk(t testing.TB) string {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(disk, "filler"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	return disk
}

// FileSystemType returns the magic number of the file system that a path is on, as in unix.TMPFS_MAGIC.
func FileSystemType(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatalf("statfs %s: %v", path, err)
	}
	return int64(st.Type)
}
