package linux

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// HasMapVDSO tells whether a process may map its vDSO where it likes (ARCH_MAP_VDSO_64, Linux 4.8). One that has a vDSO, as
// this one has, is told that it has.
func (k *Kernel) HasMapVDSO() (Answer, error) {
	return k.probe("arch_prctl(ARCH_MAP_VDSO_64)", func() error {
		const mapVDSO64 = 0x2003
		_, _, errno := syscall.RawSyscall(unix.SYS_ARCH_PRCTL, mapVDSO64, 0, 0)
		if errno == 0 || errno == unix.EEXIST {
			return nil
		}
		return errno
	}, unix.EINVAL)
}
