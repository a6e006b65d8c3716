package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A process that dumps itself cannot do so through a child: CRIU refuses to run inside the tree that it dumps, and what
// is below the caller belongs to that tree. So the swrk must be nobody's child but init's: a child that forks, and ends.
// Go cannot fork without exec, and re-executing the host's own program would run its init functions, so the child in
// between is a program of some 250 bytes, in a memory file: fork, setsid, execve. It is waited for at once; nothing that
// belongs to the peer is left in the caller, where it would be dumped too.

// startDetached starts the swrk outside the process tree below the caller.
func (c *swrkConn) startDetached(s *Swrk, call Call, attr *os.ProcAttr, argv []string, socket *os.File) error {
	switch {
	case len(detachCode) == 0:
		return fmt.Errorf("a process on %s cannot dump itself through a swrk child yet; ask a service: %w", runtime.GOARCH, errors.ErrUnsupported)
	case os.Getpid() == 1:
		return fmt.Errorf("pid 1 of a pid namespace cannot dump itself through a swrk child, which would be in the dumped tree; ask a service outside: %w", errors.ErrUnsupported)
	case len(s.ExtraFiles)+len(call.Files) > 0:
		return fmt.Errorf("a self-dump passes no files to its peer: %w", errors.ErrUnsupported)
	}
	stub, err := memoryProgram("swrk detach", detachProgram())
	if err != nil {
		return err
	}
	defer stub.Close()
	status, statusWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	defer status.Close()
	defer statusWriter.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	restore, err := disownOrphans()
	if err != nil {
		return err
	}
	defer restore()
	attr.Files = []*os.File{or(s.Stdin, null), or(s.Stdout, null), or(s.Stderr, null), socket, statusWriter}
	between, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", stub.Fd()), append([]string{"swrk-detach", c.path}, argv[1:]...), attr)
	if err != nil {
		return fmt.Errorf("the program that detaches the peer cannot be run (memory files must be executable): %w", err)
	}
	statusWriter.Close()
	numbers, readErr := io.ReadAll(io.LimitReader(status, 64))
	state, err := between.Wait()
	if err != nil && !errors.Is(err, syscall.ECHILD) {
		return os.NewSyscallError("wait", err)
	}
	if readErr != nil {
		return readErr
	}
	return c.detached(numbers, state)
}

// detached reads what the program in between reported: the peer's pid, and minus errno for what failed.
func (c *swrkConn) detached(numbers []byte, state *os.ProcessState) error {
	for ; len(numbers) >= 8; numbers = numbers[8:] {
		n := int64(binary.NativeEndian.Uint64(numbers))
		if n < 0 {
			return &os.PathError{Op: "exec", Path: c.path, Err: syscall.Errno(-n)}
		}
		c.pid = int(n)
	}
	if c.pid == 0 {
		return fmt.Errorf("the program that detaches the peer ended early: %v", state)
	}
	return nil
}

// disownOrphans makes sure that an orphan below this process is adopted by init and not by this process itself, which
// it would be if this process has asked for orphans (PR_SET_CHILD_SUBREAPER, prctl(2)).
func disownOrphans() (restore func(), err error) {
	var adopts int32
	if err := prctlGetSubreaper(&adopts); err != nil || adopts == 0 {
		return func() {}, err
	}
	set := func(v uintptr) error {
		return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, v, 0, 0, 0))
	}
	if err := set(0); err != nil {
		return nil, err
	}
	return func() { set(1) }, nil
}

// memoryProgram puts an executable into a memory file.
func memoryProgram(name string, elf []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC is of Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(elf); err != nil {
		f.Close()
		return nil, err
	}
	// A file that is open for writing cannot be executed (ETXTBSY): trade it for one that is open for reading.
	defer f.Close()
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// detachProgram is a static ELF executable around detachCode: two headers and the code, one loadable segment.
func detachProgram() []byte {
	const headers, base = 64 + 56, 0x400000
	size := uint64(headers + len(detachCode))
	le := binary.LittleEndian
	b := []byte("\x7fELF\x02\x01\x01" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00") // 64-bit, little endian
	half := func(v uint16) { b = le.AppendUint16(b, v) }
	word := func(v uint32) { b = le.AppendUint32(b, v) }
	long := func(v uint64) { b = le.AppendUint64(b, v) }
	half(2) // executable
	half(elfMachine)
	word(1)
	long(base + headers)                             // entry
	long(64)                                         // where the program header is
	long(0)                                          // no sections
	word(0)                                          // no flags
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} { // sizes and numbers of headers
		half(v)
	}
	word(1)                                                         // PT_LOAD
	word(5)                                                         // readable and executable
	for _, v := range []uint64{0, base, base, size, size, 0x1000} { // the whole file, at base
		long(v)
	}
	return append(b, detachCode...)
}
