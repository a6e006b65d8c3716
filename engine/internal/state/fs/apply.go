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
	if err == nil {
		err = enter(&t.Batch, t.Tree.Files, t.FS, elsewhere)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.Where(), err)
	}
	return nil
}

// ApplyThread gives a thread what it has for itself.
func ApplyThread(th *apply.Thread) error {
	if th.OwnFS == nil {
		return nil
	}
	files := th.Task.Tree.Files
	elsewhere, err := moved(files, th.OwnFS.Root)
	for _, c := range th.Task.Tree.Snapshot.FSContexts {
		// It has a copy of what its process has by now.
		if err == nil && c.ID == th.Task.Task.FS && !elsewhere {
			elsewhere, err = moved(files, c.Root)
		}
	}
	if err == nil {
		err = enter(&th.Batch, files, th.OwnFS, elsewhere)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", th.Where(), err)
	}
	return nil
}

// enter sets root, working directory and umask. The root is left alone where it is the one that the caller has.
func enter(b *apply.Batch, files *apply.Files, c *snapshot.FSContext, elsewhere bool) error {
	if elsewhere {
		root, err := files.Number(c.Root)
		if err != nil {
			return err
		}
		b.Do("fchdir to the root directory", unix.SYS_FCHDIR, apply.Num(root))
		b.Do("chroot", unix.SYS_CHROOT, apply.Text("."))
	}
	cwd, err := files.Number(c.Cwd)
	if err != nil {
		return err
	}
	b.Do("fchdir to the working directory", unix.SYS_FCHDIR, apply.Num(cwd))
	if c.Umask != nil {
		// Its result is the mask before, and never an error.
		b.Do("umask", unix.SYS_UMASK, apply.Num(*c.Umask))
	}
	return nil
}

// moved tells whether a directory is another one than the root directory that processes have from us. A chroot is a right that
// not everybody has.
func moved(files *apply.Files, root snapshot.FileID) (bool, error) {
	f := files.Ours(root)
	if f == nil {
		return false, fmt.Errorf("root directory: file %d was not opened", root)
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
