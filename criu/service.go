package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSocket is where `criu service` listens unless told otherwise, relative to its working directory.
const DefaultSocket = "criu_service.socket"

// Service reaches a CRIU service: `criu service --address PATH`. A service runs with rights of its own, usually root's,
// and refuses some options (inherited files, restoring as a child).
type Service struct {
	// Path of the socket; DefaultSocket in the current directory if empty.
	Path string

	prompt atomic.Int32 // see packetConn
}

func (s *Service) path() string {
	if s.Path == "" {
		return DefaultSocket
	}
	return s.Path
}

func (s *Service) String() string { return "service " + s.path() }

// Open connects to the service.
func (s *Service) Open(ctx context.Context, call Call) (Conn, error) {
	if err := refuseDirect(call, "a service"); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, connectError(s.path(), os.NewSyscallError("socket", err))
	}
	if err := s.connect(ctx, fd); err != nil {
		unix.Close(fd)
		return nil, connectError(s.path(), err)
	}
	c := newPacketConn(fd, s.path())
	c.prompt = &s.prompt
	return &socketConn{packetConn: c}, nil
}

func (s *Service) connect(ctx context.Context, fd int) error {
	path := s.path()
	if max := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > max {
		return fmt.Errorf("the socket path has %d bytes, at most %d fit into an address (unix(7)); use a shorter or relative path: %w",
			len(path), max, unix.ENAMETOOLONG)
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err == nil || errors.Is(err, unix.EISCONN) {
			return nil
		}
		// EAGAIN is a full backlog, for which the kernel has no event to wait for.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("connect", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// refuseDirect refuses what only a peer that is the caller's child can do.
func refuseDirect(call Call, what string) error {
	var problem string
	switch {
	case len(call.Files) > 0:
		problem = what + " cannot take descriptors from its client; use a swrk child for inherited files and page server sockets"
	case call.Sibling:
		problem = what + " cannot make the restored tree the caller's child; use a swrk child"
	case call.Caller != nil:
		problem = what + " cannot be asked on behalf of another process"
	default:
		return nil
	}
	return &Error{Stage: "options", Kind: ErrOptions, Err: errors.New(problem)}
}

func connectError(resource string, err error) error {
	return &Error{Stage: "connect", Kind: ErrConnect, Resource: resource, Errno: errnoOf(err), Err: err}
}

// socketConn is a conversation with a peer that this process has no hold on.
type socketConn struct{ *packetConn }

func (*socketConn) FileNumber(int) int { return -1 }
func (*socketConn) Abort() bool        { return false }

// FD holds one conversation on a socket that is connected already: a SOCK_SEQPACKET socket whose other end answers CRIU
// RPC. The file is put into non-blocking mode and is closed with the conversation, so an FD serves one call.
type FD struct {
	File *os.File

	used atomic.Bool
}

func (t *FD) String() string {
	if t.File == nil {
		return "connection"
	}
	return "connection " + t.File.Name()
}

// Open takes the socket over.
func (t *FD) Open(ctx context.Context, call Call) (Conn, error) {
	if err := refuseDirect(call, "a connected socket"); err != nil {
		return nil, err
	}
	if t.File == nil {
		return nil, connectError("FD", errors.New("no file is set"))
	}
	if !t.used.CompareAndSwap(false, true) {
		return nil, connectError(t.File.Name(), fmt.Errorf("the connection was used before: %w", syscall.EBADF))
	}
	defer t.File.Close()
	fd, err := unix.FcntlInt(t.File.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, connectError(t.File.Name(), os.NewSyscallError("dup", err))
	}
	if err := checkSeqpacket(fd); err != nil {
		unix.Close(fd)
		return nil, connectError(t.File.Name(), err)
	}
	return &socketConn{packetConn: newPacketConn(fd, t.File.Name())}, nil
}

func checkSeqpacket(fd int) error {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if typ != unix.SOCK_SEQPACKET {
		return fmt.Errorf("not a SOCK_SEQPACKET socket: %w", unix.EPROTOTYPE)
	}
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
}
