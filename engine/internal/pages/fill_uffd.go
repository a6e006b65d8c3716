//go:build amd64

package pages

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/internal/linux"
)

// uffdFrom is how large a mapping has to be for it to be registered.
const uffdFrom = 256 << 10

// uffd is a userfaultfd of the process: it makes one, since only its own memory is the descriptor about, and we take it.
type uffd struct {
	fd     int // here
	theirs uint64
	open   bool
	not    bool // there is none to be had
}

// register opens the userfaultfd if need be, and registers a range. It reports false where that is not possible.
func (u *uffd) register(f *Filler, r snapshot.Range) (bool, error) {
	if !u.open && !u.not {
		if err := u.make(f); err != nil {
			return false, err
		}
	}
	if u.not {
		return false, nil
	}
	err := f.Kernel.UFFDRegister(u.fd, r.Start, r.Len())
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		return false, nil // a kind of memory that this kernel does not take
	}
	return err == nil, err
}

func (u *uffd) make(f *Filler) error {
	var calls []stub.Call
	for _, flags := range []uint64{linux.UFFDUserModeOnly | unix.O_CLOEXEC, unix.O_CLOEXEC} {
		calls = []stub.Call{stub.NewCall(unix.SYS_USERFAULTFD, flags)}
		if err := f.Process.Run(calls); err != nil {
			return err
		}
		if !errors.Is(calls[0].Err(), unix.EINVAL) {
			break
		}
	}
	if calls[0].Err() != nil {
		u.not = true // not in this kernel, or not for us; or there is no descriptor left
		return nil
	}
	u.theirs = calls[0].Ret
	fd, err := f.Kernel.TakeFile(f.Process.PID, int(u.theirs))
	if err != nil {
		return err
	}
	u.fd, u.open = fd, true
	return f.Kernel.UFFDStart(fd)
}

// copy puts pages in place. Where one is already, it is written over.
func (u *uffd) copy(f *Filler, addr uint64, data []byte) error {
	for len(data) > 0 {
		n, err := f.Kernel.UFFDCopy(u.fd, addr, data)
		addr, data = addr+uint64(n), data[n:]
		switch {
		case err == nil:
		case errors.Is(err, unix.EEXIST):
			if err := f.Kernel.WriteParts(f.Process.PID, []linux.Part{{Addr: addr, Data: data[:Size]}}); err != nil {
				return err
			}
			addr, data = addr+Size, data[Size:]
		default:
			return err
		}
	}
	return nil
}

// close closes the userfaultfd here and, if the process is to go on, there.
func (u *uffd) close(there bool, f *Filler) error {
	if !u.open {
		return nil
	}
	u.open = false
	err := os.NewSyscallError("close", unix.Close(u.fd))
	if !there {
		return err
	}
	calls := []stub.Call{stub.NewCall(unix.SYS_CLOSE, u.theirs)}
	if runErr := f.Process.Run(calls); runErr != nil {
		return errors.Join(err, runErr)
	}
	return errors.Join(err, remote.Must(calls))
}

// hugePages says which memory gets huge pages when it is written. A userfaultfd gives small ones.
type hugePages struct {
	read bool
	mode string // of /sys/kernel/mm/transparent_hugepage/enabled
}

const hugeSize = 2 << 20

func (h *hugePages) wanted(s *snapshot.Space, v *snapshot.VMA) bool {
	if (v.Start+hugeSize-1)&^(hugeSize-1)+hugeSize > v.End || v.Advice&(1<<unix.MADV_NOHUGEPAGE) != 0 || s.THPDisabled {
		return false
	}
	if !h.read {
		h.read = true
		text, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
		if _, chosen, ok := bytes.Cut(text, []byte("[")); ok {
			chosen, _, _ = bytes.Cut(chosen, []byte("]"))
			h.mode = string(chosen)
		}
	}
	switch h.mode {
	case "always":
		return true
	case "madvise":
		return v.Advice&(1<<unix.MADV_HUGEPAGE) != 0
	}
	return false
}
