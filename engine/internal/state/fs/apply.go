//go:build amd64

package fs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Apply gives a process its root, its working directory and its umask.
func Apply(t *apply.Task) error {
	if t.FS == nil {
		return nil // a process before it has the same
	}
	elsewhere, err := moved(t.Tree.Files, t.FS.Root)
	if err != nil {
		return fmt.Errorf("%s: root directory: %w", t.Where(), err)
	}
	if elsewhere {
		root, err := t.Tree.Files.Number(t.FS.Root)
		if err != nil {
			return err
		}
		t.Batch.Do("fchdir to the root directory", unix.SYS_FCHDIR, apply.Num(root))
		t.Batch.Do("chroot", unix.SYS_CHROOT, apply.Text("."))
	}
	cwd, err := t.Tree.Files.Number(t.FS.Cwd)
	if err != nil {
		return err
	}
	t.Batch.Do("fchdir to the working directory", unix.SYS_FCHDIR, apply.Num(cwd))
	if t.FS.Umask != nil {
		// Its result is the mask before, and never an error.
		t.Batch.Do("umask", unix.SYS_UMASK, apply.Num(*t.FS.Umask))
	}
	return nil
}

// moved tells whether a directory is another one than the root directory that processes have from us. A chroot is a right that
// not everybody has.
func moved(files *apply.Files, root snapshot.FileID) (bool, error) {
	f := files.Ours(root)
	if f == nil {
		return false, fmt.Errorf("file %d was not opened", root)
	}
	var theirs, ours unix.Statx_t
	const what = unix.STATX_INO | unix.STATX_MNT_ID
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, what, &theirs); err != nil {
		return false, fmt.Errorf("statx: %w", err)
	}
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, what, &ours); err != nil {
		return false, fmt.Errorf("statx: %w", err)
	}
	return theirs.Ino != ours.Ino || theirs.Mnt_id != ours.Mnt_id || theirs.Dev_major != ours.Dev_major || theirs.Dev_minor != ours.Dev_minor, nil
}
