package linux

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadMemory reads memory of a task by process_vm_readv: all of buf, or it fails.
func (k *Kernel) ReadMemory(tid int, addr uint64, buf []byte) error {
	return k.copyMemory("process_vm_readv", unix.SYS_PROCESS_VM_READV, tid, addr, buf)
}

// WriteMemory writes memory of a task by process_vm_writev, as far as the task itself may write there.
func (k *Kernel) WriteMemory(tid int, addr uint64, buf []byte) error {
	return k.copyMemory("process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, tid, addr, buf)
}

func (k *Kernel) copyMemory(name string, nr uintptr, tid int, addr uint64, buf []byte) error {
	for len(buf) > 0 {
		if err := k.step(name); err != nil {
			return err
		}
		local := unix.Iovec{Base: &buf[0]}
		local.SetLen(len(buf))
		remote := unix.RemoteIovec{Base: uintptr(addr), Len: len(buf)}
		n, _, errno := syscall.RawSyscall6(nr, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
		if errno != 0 {
			return fmt.Errorf("%d bytes at %#x: %w", len(buf), addr, fail(name, tid, errno))
		}
		buf, addr = buf[n:], addr+uint64(n)
	}
	return nil
}

// ReadMemoryParts reads parts of the memory of a task by process_vm_readv, one after the other: all of buf, or it fails.
func (k *Kernel) ReadMemoryParts(tid int, parts []unix.RemoteIovec, buf []byte) error {
	const name, most = "process_vm_readv", 1024 // UIO_MAXIOV
	for len(parts) > 0 && len(buf) > 0 {
		if err := k.step(name); err != nil {
			return err
		}
		some := parts[:min(most, len(parts))]
		local := unix.Iovec{Base: &buf[0]}
		local.SetLen(len(buf))
		// It may take long: the runtime should know.
		n, _, errno := syscall.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&some[0])), uintptr(len(some)), 0)
		if n == 0 && errno == 0 {
			errno = unix.EFAULT // the parts were empty
		}
		if errno != 0 {
			return fmt.Errorf("%d bytes at %#x: %w", parts[0].Len, parts[0].Base, fail(name, tid, errno))
		}
		buf = buf[n:]
		for left := int(n); left > 0; {
			if part := parts[0].Len; part > left {
				// Not the caller's parts: they are read once more where this fails.
				rest := append([]unix.RemoteIovec{{Base: parts[0].Base + uintptr(left), Len: part - left}}, parts[1:]...)
				parts, left = rest, 0
			} else {
				parts, left = parts[1:], left-part
			}
		}
	}
	if len(buf) > 0 {
		return fmt.Errorf("%d bytes more than there are parts: %w", len(buf), unix.EINVAL)
	}
	return nil
}

// ForceMemory writes memory of a tracee whatever the protection of its private mappings: by /proc/PID/mem, and where
// that is forbidden (proc_mem.force_override=never, Linux 6.12) by ptrace.
func (k *Kernel) ForceMemory(tid int, addr uint64, data []byte) error {
	err := k.writeProcMem(tid, addr, data)
	if forbidden(err) {
		return k.Poke(tid, addr, data)
	}
	return err
}

func (k *Kernel) writeProcMem(tid int, addr uint64, data []byte) error {
	if err := k.step("pwrite /proc/PID/mem"); err != nil {
		return err
	}
	path := "/proc/" + strconv.Itoa(tid) + "/mem"
	fd, err := openAt(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, int64(addr))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			err = io.ErrShortWrite
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		data, addr = data[n:], addr+uint64(n)
	}
	return nil
}

// Categories of pages for PAGEMAP_SCAN, from include/uapi/linux/fs.h.
const (
	PageWPAllowed uint64 = 1 << iota
	PageWritten
	PageFile
	PagePresent
	PageSwapped
	PageZero // maps the zero page
	PageHuge
	PageSoftDirty
	PageGuard
)

// PagemapScan is struct pm_scan_arg without its result vector.
type PagemapScan struct {
	Flags        uint64
	Start, End   uint64 // addresses, page aligned
	WalkEnd      uint64 // out: where the walk ended
	Max          uint64 // at most so many matching pages, 0 for no limit
	Inverted     uint64
	CategoryMask uint64 // all of these must be set
	AnyOf        uint64 // and, if not 0, any of these
	ReturnMask   uint64 // categories to report
	Regions      []PageRegion
}

// PageRegion is a run of pages of the same categories.
type PageRegion struct {
	Start, End, Categories uint64
}

// pagemapScanArg is struct pm_scan_arg. The vector is a pointer here, not a number, so that it stays valid when the
// goroutine's stack moves.
type pagemapScanArg struct {
	size, flags, start, end, walkEnd uint64
	vec                              *PageRegion
	vecLen, max, inverted            uint64
	mask, anyOf, ret                 uint64
}

// PagemapScan runs one PAGEMAP_SCAN (Linux 6.7) on a descriptor of /proc/PID/pagemap. It fills scan.Regions, as far as
// they reach, and scan.WalkEnd, and returns how many regions it filled.
func (k *Kernel) PagemapScan(fd int, scan *PagemapScan) (int, error) {
	const name = "ioctl(PAGEMAP_SCAN)"
	if err := k.step(name); err != nil {
		return 0, err
	}
	arg := pagemapScanArg{
		size: uint64(unsafe.Sizeof(pagemapScanArg{})), flags: scan.Flags, start: scan.Start, end: scan.End, max: scan.Max,
		inverted: scan.Inverted, mask: scan.CategoryMask, anyOf: scan.AnyOf, ret: scan.ReturnMask, vecLen: uint64(len(scan.Regions)),
	}
	if len(scan.Regions) > 0 {
		arg.vec = &scan.Regions[0]
	}
	const request = 3<<30 | uint(unsafe.Sizeof(arg))<<16 | 'f'<<8 | 16 // _IOWR('f', 16, struct pm_scan_arg)
	n, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(&arg)))
	scan.WalkEnd = arg.walkEnd
	return int(n), fail(name, 0, errno)
}

// MaxParts is how many parts one call takes (UIO_MAXIOV).
const MaxParts = 1024

// A Part is content for memory of a task at an address.
type Part struct {
	Addr uint64
	Data []byte
}

// WriteParts is WriteMemory of up to MaxParts parts, none of them empty, by as few calls as the kernel allows.
func (k *Kernel) WriteParts(tid int, parts []Part) error {
	const name = "process_vm_writev"
	local, remote := make([]unix.Iovec, len(parts)), make([]unix.RemoteIovec, len(parts))
	for i, p := range parts {
		local[i].Base = &p.Data[0]
		local[i].SetLen(len(p.Data))
		remote[i] = unix.RemoteIovec{Base: uintptr(p.Addr), Len: len(p.Data)}
	}
	for len(parts) > 0 {
		if err := k.step(name); err != nil {
			return err
		}
		n, _, errno := syscall.Syscall6(unix.SYS_PROCESS_VM_WRITEV, uintptr(tid),
			uintptr(unsafe.Pointer(&local[0])), uintptr(len(parts)), uintptr(unsafe.Pointer(&remote[0])), uintptr(len(parts)), 0)
		if errno != 0 {
			return fmt.Errorf("%d bytes at %#x: %w", remote[0].Len, remote[0].Base, fail(name, tid, errno))
		}
		done := int(n)
		for len(parts) > 0 && done >= remote[0].Len {
			done -= remote[0].Len
			local, remote, parts = local[1:], remote[1:], parts[1:]
		}
		if done > 0 {
			first := parts[0].Data[len(parts[0].Data)-remote[0].Len+done:]
			local[0].Base = &first[0]
			local[0].SetLen(len(first))
			remote[0] = unix.RemoteIovec{Base: remote[0].Base + uintptr(done), Len: len(first)}
		}
	}
	return nil
}

// ForceInto is ForceMemory by way of a descriptor of /proc/PID/mem that is open for writing.
func (k *Kernel) ForceInto(mem *os.File, tid int, addr uint64, data []byte) error {
	if err := k.step("pwrite /proc/PID/mem"); err != nil {
		return err
	}
	_, err := io.NewOffsetWriter(mem, int64(addr)).Write(data)
	if forbidden(err) {
		return k.Poke(tid, addr, data)
	}
	return err
}

// forbidden reports whether /proc/PID/mem may not be written, or not there.
func forbidden(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}
