//go:build amd64

package regfile

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Names opens files by their names. What a name is of is held from when it is looked at until another name is: a file that is open
// several times in a row, as devices and logs are, is looked up once. The zero value is ready for use; it is to be closed.
type Names struct {
	held     bool
	name     string
	nofollow bool // it was not followed
	fd       int  // of O_PATH
	st       unix.Stat_t

	fds int // of /proc/self/fd; 0 for not open
}

// Close lets go of what is held.
func (n *Names) Close() {
	n.forget()
	if n.fds > 0 {
		_ = unix.Close(n.fds)
		n.fds = 0
	}
}

func (n *Names) forget() {
	if n.held {
		_ = unix.Close(n.fd)
		n.held = false
	}
}

// look finds out what a name is of.
func (n *Names) look(root *os.File, name string, flags uint32) error {
	nofollow := flags&unix.O_NOFOLLOW != 0
	if n.held && n.name == name && n.nofollow == nofollow {
		return nil
	}
	n.forget()
	fd, err := openat2(root, name, unix.O_PATH|uint64(flags)&unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	n.held, n.name, n.nofollow, n.fd = true, name, nofollow, fd
	if err := unix.Fstat(fd, &n.st); err != nil {
		n.forget()
		return err
	}
	return nil
}

// again opens what was looked at: the very file, by way of /proc, so that nobody can have put another in its place. What cannot be
// opened so, as it then had other flags or would not be mounted first, is opened by its name and has to be the same.
func (n *Names) again(root *os.File, how uint64) (int, error) {
	const special = unix.O_PATH | unix.O_NOFOLLOW | unix.O_DIRECTORY
	if how&special != 0 || n.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return n.byName(root, how)
	}
	if n.fds == 0 {
		fds, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return n.byName(root, how)
		}
		n.fds = fds
	}
	at := &unix.OpenHow{Flags: how | unix.O_CLOEXEC}
	for {
		fd, err := unix.Openat2(n.fds, strconv.Itoa(n.fd), at)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (n *Names) byName(root *os.File, how uint64) (int, error) {
	fd, err := openat2(root, n.name, how)
	if err != nil {
		return -1, err
	}
	var opened unix.Stat_t
	if err = unix.Fstat(fd, &opened); err == nil && (opened.Dev != n.st.Dev || opened.Ino != n.st.Ino) {
		err = errors.New("another file has taken its place while it was opened")
	}
	if err != nil {
		n.forget() // it has changed
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
