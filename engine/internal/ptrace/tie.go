package ptrace

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// Tie ties the lives of processes, which the tracer traces, to that of the tracer: should it end, they are all killed, and none of them
// executes anything before. Unlike [Options].ExitKill that can be ended for all of them at once, by Untie: let them be kept in the
// meantime (see [Thread.Keep]), and there is no moment in which the death of the tracer is that of a part of them. With an error
// nobody is tied.
//
// How it is done is told at [linux.Fate].
func (t *Tracer) Tie(pids []int) error {
	if err := mayTie(pids); err != nil {
		return err
	}
	t.apart = true
	fate, err := t.kernel.ShareFate(pids)
	if errors.Is(err, unix.EMFILE) {
		err = fmt.Errorf("%d processes need one descriptor each (RLIMIT_NOFILE, ulimit -n): %w", len(pids), err)
	}
	t.fate = fate
	return err
}

// Untie lets all processes that Tie has tied live on without the tracer. It is a single system call.
func (t *Tracer) Untie() error {
	if t.fate == nil {
		return nil
	}
	return t.fate.Release()
}

// mayTie finds processes that could not be killed. What counts are user ids alone: root's right to kill others in a user namespace
// does not.
func mayTie(pids []int) error {
	if unix.Geteuid() == 0 {
		all, err := proc.New(linux.Proc{}).Self().UIDMap()
		if err != nil || slices.Equal(all, []proc.IDMap{{Count: math.MaxUint32}}) {
			return err
		}
	}
	uid, euid := uint32(unix.Getuid()), uint32(unix.Geteuid())
	for _, pid := range pids {
		status, err := proc.New(linux.Proc{}).Process(pid).Status()
		if err != nil {
			return err
		}
		if to := status.UID; !mayKill(uid, euid, to) {
			return fmt.Errorf("process %d is of user %d, and may not be killed by user %d without a capability: %w", pid, to.Real, euid, unix.EPERM)
		}
	}
	return nil
}

// mayKill tells whether a user may send signals to another one's processes (fs/fcntl.c, sigio_perm).
func mayKill(uid, euid uint32, to proc.IDs) bool {
	return euid == to.Saved || euid == to.Real || uid == to.Saved || uid == to.Real
}
