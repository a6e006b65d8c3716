package criu

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A tree that is restored as the caller's child, and then is not to be, is killed by the peer; but its root is the caller's child,
// and the caller's to wait for. Left alone it would keep its number, and the next restore would fail.

// noteFormerRoot remembers, before a restore, whether the number of the root to be is somebody's already, who must be left alone.
func (c *swrkConn) noteFormerRoot() {
	if c.sibling && len(c.tree) > 0 {
		_, err := unix.Getpgid(c.tree[0])
		c.formerRoot = !errors.Is(err, unix.ESRCH)
	}
}

// buryRoot waits for the root of a restore that has failed, once the peer is gone.
func (c *swrkConn) buryRoot() {
	root := int(c.rootTask.Load())
	if root == 0 && len(c.tree) > 0 && !c.formerRoot {
		root = c.tree[0]
	}
	if root == 0 {
		return
	}
	for deadline := time.Now().Add(closeGrace); ; {
		pid, err := syscall.Wait4(root, nil, syscall.WNOHANG, nil)
		if pid != 0 || err != nil && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			return // it is buried, or no child of ours
		}
		// It has been killed, and takes its time.
		if fd, err := unix.PidfdOpen(root, 0); err == nil {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
			_ = unix.Close(fd)
		}
	}
}
