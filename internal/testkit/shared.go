package testkit

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SharedDir is a directory that everyone may enter.
func SharedDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "stasis-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// UserDir is a directory that everyone may enter and that belongs to a user.
func UserDir(t testing.TB, uid int) string {
	t.Helper()
	dir := SharedDir(t)
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Cgroup makes a cgroup, in the first hierarchy that there is.
func Cgroup(t testing.TB) string {
	t.Helper()
	var dir string
	Need(t, Feature("cgroups that can be made", func() error {
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/pids"} {
			if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
				dir = root
				return nil
			}
		}
		return Missing("there is none below /sys/fs/cgroup")
	}))
	group, err := os.MkdirTemp(dir, "stasis-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		WaitFor(t, "the cgroup to be empty", func() bool { return unix.Rmdir(group) == nil })
	})
	return group
}
