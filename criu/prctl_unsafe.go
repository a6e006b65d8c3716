package criu

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prctlGetSubreaper stores in v whether this process adopts orphans below it (PR_GET_CHILD_SUBREAPER, prctl(2)).
func prctlGetSubreaper(v *int32) error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(v)), 0, 0, 0))
}
