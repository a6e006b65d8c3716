package linux

import (
	"slices"

	"golang.org/x/sys/unix"
)

// CloseAll closes descriptors, in any order: those whose numbers follow each other, as those of many files do, by one call. It sorts
// the list.
func CloseAll(fds []int) {
	slices.Sort(fds)
	for len(fds) > 0 {
		n := 1
		for n < len(fds) && fds[n] == fds[0]+n {
			n++
		}
		_ = unix.CloseRange(uint(fds[0]), uint(fds[n-1]), 0)
		fds = fds[n:]
	}
}
