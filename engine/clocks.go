//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/origin"
	"stasis.example/internal/proc"
)

// setClocks has the processes that this thread makes from now on find the clocks where the dump left them: CLOCK_MONOTONIC and
// CLOCK_BOOTTIME must not go back, as they would on a machine that was started later, and time that has passed meanwhile is no time to
// programs that wait for a deadline. Whoever may not have a time namespace gets the machine's clocks, unless those would go back.
func (r *restore) setClocks() error {
	then := r.plan.Tree.Origin.Clocks
	if then == nil {
		return nil
	}
	offsets, err := proc.New(os.DirFS("/proc")).Process(os.Getpid()).TimeOffsets()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now, err := origin.Clocks()
	if err != nil {
		return err
	}
	monotonic := snapshot.Timespec{}.Add(then.Monotonic.Sub(now.Monotonic) + offsets.Monotonic)
	boottime := snapshot.Timespec{}.Add(then.Boottime.Sub(now.Boottime) + offsets.Boottime)
	err = r.kernel.EnterTimeNamespace(unix.Timespec(monotonic), unix.Timespec(boottime))
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("the clocks: %w", err)
	case now.Monotonic.Sub(then.Monotonic) < 0 || now.Boottime.Sub(then.Boottime) < 0:
		return fmt.Errorf("this machine has been up for less long than the one of the dump: without a time namespace, for which CAP_SYS_ADMIN and CAP_SYS_TIME are needed, the clocks would go back: %w", err)
	}
	r.log.info("the clocks are the machine's: %v", err)
	return nil
}
