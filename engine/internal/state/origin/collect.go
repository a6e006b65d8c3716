//go:build amd64

package origin

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// ownCgroupSet is the number of the control groups of the program that makes the dump. No others are told apart yet.
const ownCgroupSet = 1

// Collect reads the namespaces of this program, and the clocks. It comes first: so its own namespaces have the same numbers in
// every dump.
func Collect(t *collect.Tree) error {
	o := &t.Snapshot.Origin
	n, err := collect.Namespaces(t, t.Proc.Self())
	if err != nil {
		return err
	}
	o.Namespaces = n
	o.CgroupSet = ownCgroupSet
	c, err := Clocks()
	if err != nil {
		return err
	}
	o.Uptime = uint64(c.Boottime.Sec)*1e6 + uint64(c.Boottime.Nsec)/1e3
	o.Clocks = &c
	return inside(t, &c)
}

// Clocks reads the clocks that a time namespace has of its own, as this program sees them.
func Clocks() (c snapshot.Clocks, err error) {
	var monotonic, boottime unix.Timespec
	if err = errors.Join(unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic), unix.ClockGettime(unix.CLOCK_BOOTTIME, &boottime)); err != nil {
		return c, fmt.Errorf("clock_gettime: %w", err)
	}
	return snapshot.Clocks{Monotonic: snapshot.Timespec(monotonic), Boottime: snapshot.Timespec(boottime)}, nil
}

// inside makes the clocks those that the tree sees, which may be in a time namespace: a restore has given it one.
func inside(t *collect.Tree, c *snapshot.Clocks) error {
	ours, err := t.Proc.Self().TimeOffsets()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without time namespaces
	}
	if err != nil {
		return err
	}
	theirs, err := t.Processes[0].Dir.TimeOffsets()
	if err != nil {
		return err
	}
	c.Monotonic = c.Monotonic.Add(theirs.Monotonic - ours.Monotonic)
	c.Boottime = c.Boottime.Add(theirs.Boottime - ours.Boottime)
	return nil
}
