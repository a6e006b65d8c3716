package linux

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UFFDUserModeOnly has userfaultfd(2) make a descriptor that handles faults of user mode only, which needs no privilege (Linux
// 5.11).
const UFFDUserModeOnly = 1

// From include/uapi/linux/userfaultfd.h.
const (
	uffdAPIVersion      = 0xaa
	uffdRegisterMissing = 1
	uffdioAPI           = 3<<30 | 24<<16 | 0xaa<<8 | 0x3f
	uffdioRegister      = 3<<30 | 32<<16 | 0xaa<<8 // number 0
)

// UFFDIOCopy is the ioctl of UFFDCopy, for processes that make the call themselves.
const UFFDIOCopy = 3<<30 | 40<<16 | 0xaa<<8 | 0x03

// UFFDOpen makes a userfaultfd for our own memory, of which only pages that programs ask for are its business.
func (k *Kernel) UFFDOpen() (int, error) {
	const name = "userfaultfd"
	if err := k.step(name); err != nil {
		return -1, err
	}
	fd, _, errno := syscall.Syscall(unix.SYS_USERFAULTFD, UFFDUserModeOnly|unix.O_CLOEXEC, 0, 0)
	return int(fd), fail(name, 0, errno)
}

// UFFDStart tells a userfaultfd which version of its interface is spoken: the first thing to be done with one.
func (k *Kernel) UFFDStart(fd int) error {
	arg := struct{ api, features, ioctls uint64 }{api: uffdAPIVersion}
	return k.uffd("ioctl(UFFDIO_API)", fd, uffdioAPI, unsafe.Pointer(&arg))
}

// UFFDRegister has a userfaultfd handle missing pages of a range: only then UFFDCopy can put pages there.
func (k *Kernel) UFFDRegister(fd int, start, length uint64) error {
	arg := struct{ start, length, mode, ioctls uint64 }{start: start, length: length, mode: uffdRegisterMissing}
	return k.uffd("ioctl(UFFDIO_REGISTER)", fd, uffdioRegister, unsafe.Pointer(&arg))
}

func (k *Kernel) uffd(name string, fd int, request uintptr, arg unsafe.Pointer) error {
	if err := k.step(name); err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return fail(name, 0, errno)
}

// UFFDCopy puts pages where there are none, whatever the protection of the mapping, and returns how many bytes it has put there.
// The error is EEXIST where the next page is there.
func (k *Kernel) UFFDCopy(fd int, addr uint64, pages []byte) (int, error) {
	const name = "ioctl(UFFDIO_COPY)"
	done := 0
	for done < len(pages) {
		if err := k.step(name); err != nil {
			return done, err
		}
		// The source is a pointer here, not a number, so that it stays valid when the goroutine's stack moves.
		arg := struct {
			addr         uint64
			src          *byte
			length, mode uint64
			copied       int64
		}{addr: addr + uint64(done), src: &pages[done], length: uint64(len(pages) - done)}
		_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), UFFDIOCopy, uintptr(unsafe.Pointer(&arg)))
		if arg.copied > 0 {
			done += int(arg.copied)
			continue
		}
		// EAGAIN without progress: the address space is just being changed, which nobody does who is being made.
		return done, fail(name, 0, errno)
	}
	return done, nil
}

// AddressOf returns where mapped memory is, for calls that take an address as a number. It stays there, since it is not of the heap.
func AddressOf(mapped []byte) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mapped))))
}
