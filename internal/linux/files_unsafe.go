package linux

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetTimerTicks sets how often a timerfd has expired since it was read. The kernel has it with CONFIG_CHECKPOINT_RESTORE.
func (k *Kernel) SetTimerTicks(fd int, ticks uint64) error {
	if err := k.step("ioctl(TFD_IOC_SET_TICKS)"); err != nil {
		return err
	}
	const request = 0x40085400 // TFD_IOC_SET_TICKS
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&ticks)))
	return fail("ioctl(TFD_IOC_SET_TICKS)", 0, errno)
}
