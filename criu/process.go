package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a restored root task that is the calling process' child. Its methods may be called from any goroutine.
type Process struct {
	// PID in the caller's pid namespace.
	PID int

	process *os.Process
	pidfd   *os.File // non-blocking, in the runtime's poller: readable once the process has ended
}

func openProcess(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.EINVAL) { // PIDFD_NONBLOCK is of Linux 5.10
		if fd, err = unix.PidfdOpen(pid, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the restored process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Process{PID: pid, process: p, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Wait waits until the task has ended and returns its status. It may succeed once only, like [os.Process.Wait], and
// releases the handle; a context that ends leaves the task and the handle as they are.
func (p *Process) Wait(ctx context.Context) (*os.ProcessState, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("wait for pid %d: %w", p.PID, err)
	}
	conn := &packetConn{file: p.pidfd, raw: raw}
	stop := conn.until(ctx)
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	stop()
	if err = conn.ioError(ctx, err, nil); err != nil {
		return nil, fmt.Errorf("wait for pid %d: %w", p.PID, err)
	}
	state, err := p.process.Wait()
	if err != nil {
		return nil, fmt.Errorf("wait for pid %d: %w", p.PID, err)
	}
	return state, p.pidfd.Close()
}

// Signal sends a signal to the task, by its pidfd: never to another process that got the same pid.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal pid %d: unsupported signal %v", p.PID, sig)
	}
	if err := p.process.Signal(s); err != nil {
		return fmt.Errorf("signal pid %d: %w", p.PID, err)
	}
	return nil
}

// Release gives the handle back without waiting.
func (p *Process) Release() error { return errors.Join(p.process.Release(), p.pidfd.Close()) }
