package linux

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCloseAll(t *testing.T) {
	var fds []int
	for range 6 {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 200)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	stays := fds[2]
	CloseAll([]int{fds[4], fds[0], fds[5], fds[1], fds[3]})
	for _, fd := range fds {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		switch {
		case fd == stays && err != nil:
			t.Errorf("descriptor %d, which was not in the list: %v", fd, err)
		case fd != stays && !errors.Is(err, unix.EBADF):
			t.Errorf("descriptor %d is open still (%v)", fd, err)
		}
	}
	CloseAll([]int{stays})
	CloseAll(nil)
}
