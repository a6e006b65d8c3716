package server

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterSelf puts the main thread, which calls it, under a seccomp filter that lets everything through. What a process's main thread
// is under, the process is to others.
func filterSelf() error {
	allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	program := unix.SockFprog{Len: uint16(len(allow)), Filter: &allow[0]}
	return errors.Join(
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0),
	)
}
