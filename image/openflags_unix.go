//go:build unix

package image

import "syscall"

// openFlags: a fifo in the place of an image is an error, not a wait for its writer.
const openFlags = syscall.O_NONBLOCK
