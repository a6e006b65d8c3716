//go:build amd64

package pages

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
)

// A shadow is an image on a tmpfs, mapped in our own memory as a range that a userfaultfd has charge of: what is put there becomes pages
// of the file, without the file's lock, which whoever writes has, and without pages that are cleared first, as those of a
// mapping are that is just written to. What was put there does not stay mapped, and nobody ever looks: only the kernel goes
// there, in calls that fail where there is no room.
type shadow struct {
	kernel *linux.Kernel
	uffd   int
	mapped []byte
}

// newShadow maps a file of so many bytes, or returns nil where that cannot be: on a disk, or without a userfaultfd.
func newShadow(k *linux.Kernel, fd int, size int64) *shadow {
	uffd, err := k.UFFDOpen()
	if err != nil {
		return nil
	}
	s := &shadow{kernel: k, uffd: uffd}
	if s.mapped, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		if err = k.UFFDStart(s.uffd); err == nil {
			err = k.UFFDRegister(s.uffd, s.address(0), uint64(size))
		}
	}
	if err != nil {
		_ = s.Close()
		return nil
	}
	return s
}

func (s *shadow) address(offset int64) uint64 { return linux.AddressOf(s.mapped) + uint64(offset) }

// WriteAt puts pages where the file has none.
func (s *shadow) WriteAt(pages []byte, offset int64) (int, error) {
	n, err := s.kernel.UFFDCopy(s.uffd, s.address(offset), pages)
	if n > 0 {
		if forget := unix.Madvise(s.mapped[offset:offset+int64(n)], unix.MADV_DONTNEED); err == nil && forget != nil {
			err = fmt.Errorf("madvise(MADV_DONTNEED): %w", forget)
		}
	}
	if err == nil && n < len(pages) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Close unmaps the file, which keeps what was put there. No shadow is closed already.
func (s *shadow) Close() error {
	if s == nil {
		return nil
	}
	err := unix.Close(s.uffd)
	if s.mapped != nil {
		if unmapErr := unix.Munmap(s.mapped); err == nil {
			err = unmapErr
		}
	}
	return err
}
