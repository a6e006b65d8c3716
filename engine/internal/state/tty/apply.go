//go:build amd64

package tty

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Own returns a descriptor of this program that is its terminal, the standard ones first, -1 for none. It is the caller's to
// close if it is not below 3.
func Own() int {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return fd
		}
	}
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// Open opens the terminal of whoever restores once more, as a file of its own with the flags given.
func Open(own int, f *snapshot.File) (*os.File, error) {
	if own < 0 {
		return nil, fmt.Errorf("the terminal of a shell job: whoever restores has no terminal: %w", unix.ENOTTY)
	}
	how := int(f.Flags&(unix.O_ACCMODE|unix.O_APPEND)) | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", own), how, 0)
	if err != nil {
		return nil, fmt.Errorf("open the terminal of whoever restores: %w", err)
	}
	if err := apply.SetFlags(fd, f.Flags); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return apply.NewFile(fd, "terminal"), nil
}
