//go:build amd64

package origin

import (
	"errors"
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
	var c snapshot.Clocks
	for _, clock := range []struct {
		id int32
		to *snapshot.Timespec
	}{{unix.CLOCK_MONOTONIC, &c.Monotonic}, {unix.CLOCK_BOOTTIME, &c.Boottime}} {
		var ts unix.Timespec
		if err := unix.ClockGettime(clock.id, &ts); err != nil {
			return err
		}
		*clock.to = snapshot.Timespec{Sec: ts.Sec, Nsec: ts.Nsec}
	}
	o.Uptime = uint64(c.Boottime.Sec)*1e6 + uint64(c.Boottime.Nsec)/1e3
	o.Clocks = &c
	return inside(t, &c)
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
