package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// maxFiles is the largest number of descriptors that the kernel passes in one packet (SCM_MAX_FD, unix(7)).
const maxFiles = 253

// packetConn exchanges RPC packets over a connected SOCK_SEQPACKET socket. It waits in the runtime's poller, so that a
// context can end a wait; nothing is lost then, because a packet is taken from the socket whole or not at all.
type packetConn struct {
	// The poller has the socket only when something has to be waited for: to enlist it, and to be woken by way of the poller, takes
	// longer than a small request.
	mu     sync.Mutex
	fd     int // while file is nil
	name   string
	closed bool

	file *os.File
	raw  syscall.RawConn
	in   []byte // reused: what is decoded from it is copied
	out  []byte
	oob  []byte

	// prompt counts those that wait for an answer which may be there at once, with a thread each; nil where none is to be.
	prompt *atomic.Int32

	// Where the peer is a child of ours: its pidfd, and an epoll instance over that and the socket to wait on. Others
	// may hold the peer's end of the socket, such as what a restore has made so far: its death alone ends nothing then.
	peer, wake *os.File
	wakeRaw    syscall.RawConn
}

const (
	// soon is how long an answer may take that is waited for with a thread of its own.
	soon = 2 * time.Millisecond
	// maxPrompt is how many such threads there may be at once.
	maxPrompt = 4
)

// newPacketConn takes over a socket.
func newPacketConn(fd int, name string) *packetConn { return &packetConn{fd: fd, name: name} }

// early does something with the socket's number where the poller does not have it yet. It reports whether that was so.
func (c *packetConn) early(do func(fd int)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil || c.closed {
		return false
	}
	do(c.fd)
	return true
}

// enlist gives the socket to the poller.
func (c *packetConn) enlist() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.file != nil:
		return nil
	case c.closed:
		return os.ErrClosed
	}
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	c.file = os.NewFile(uintptr(c.fd), c.name)
	var err error
	c.raw, err = c.file.SyscallConn()
	return err
}

// watch makes Recv notice the end of the peer, a child that was not waited for yet. Without pidfds (Linux 5.3) there is
// the end of the conversation alone.
func (c *packetConn) watch(pid int) error {
	if err := c.enlist(); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	c.peer = os.NewFile(uintptr(fd), "pidfd of the peer")
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // for the runtime's poller
		unix.Close(epoll)
		return os.NewSyscallError("fcntl", err)
	}
	c.wake = os.NewFile(uintptr(epoll), "epoll of the peer")
	if c.wakeRaw, err = c.wake.SyscallConn(); err != nil {
		return err
	}
	add := func(fd int) error {
		return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}
	addErr := add(fd)
	if err := c.raw.Control(func(socket uintptr) { addErr = also(addErr, add(int(socket))) }); err != nil {
		return err
	}
	return addErr
}

// peerGone reports whether a peer that is watched has ended.
func (c *packetConn) peerGone() bool {
	if c.peer == nil {
		return false
	}
	raw, err := c.peer.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		gone = err == nil && n > 0
	})
	return gone
}

func (c *packetConn) Close() error {
	for _, f := range []*os.File{c.wake, c.peer} {
		if f != nil {
			f.Close()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		if err := c.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
		return nil
	}
	if c.closed {
		return nil
	}
	c.closed = true
	return os.NewSyscallError("close", unix.Close(c.fd))
}

// until lets ctx end what is waiting on the socket. The function that it returns must be called when the wait is over.
func (c *packetConn) until(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	var fired sync.WaitGroup
	fired.Add(1)
	cancel := context.AfterFunc(ctx, func() {
		defer fired.Done()
		c.setDeadline(time.Unix(1, 0)) // in the past: wakes who waits
	})
	return func() {
		if !cancel() {
			fired.Wait()
			c.setDeadline(time.Time{})
		}
	}
}

func (c *packetConn) setDeadline(t time.Time) {
	c.file.SetDeadline(t)
	if c.wake != nil {
		c.wake.SetDeadline(t)
	}
}

// Send sends one request as one packet.
func (c *packetConn) Send(ctx context.Context, req *rpc.Req) error {
	c.out = req.Append(c.out[:0])
	if len(c.out) > rpc.MaxMessage {
		return &Error{Stage: "send", Kind: ErrTransport, Errno: syscall.EMSGSIZE,
			Err: fmt.Errorf("the request has %d bytes; at most %d can be sent", len(c.out), rpc.MaxMessage)}
	}
	if err := c.transmit(ctx); err != nil {
		return &Error{Stage: "send", Kind: ErrTransport, Errno: errnoOf(err), Err: err}
	}
	return nil
}

// transmit sends the packet that is to go out.
func (c *packetConn) transmit(ctx context.Context) error {
	var sendErr error
	try := func(fd int) {
		_, sendErr = retryEINTR(func() (int, error) { return 0, unix.Sendmsg(fd, c.out, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) })
	}
	if ctx.Err() == nil && c.early(try) && !errors.Is(sendErr, unix.EAGAIN) {
		return sendErr
	}
	if err := c.enlist(); err != nil {
		return err
	}
	defer c.until(ctx)()
	err := c.raw.Write(func(fd uintptr) bool {
		try(int(fd))
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return c.ioError(ctx, err, sendErr)
}

// ioError picks the error that matters: the context's, the poller's, the system call's.
func (c *packetConn) ioError(ctx context.Context, poll, call error) error {
	switch {
	case poll != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case poll != nil:
		return poll
	}
	return call
}

// Recv receives one packet with the descriptors that come along.
func (c *packetConn) Recv(ctx context.Context) (*Message, error) {
	n, files, err := c.receive(ctx)
	if err != nil {
		kind := ErrTransport
		if errors.Is(err, errTooLong) {
			kind = ErrProtocol
		}
		return nil, &Error{Stage: "receive", Kind: kind, Errno: errnoOf(err), Err: err}
	}
	msg := &Message{Resp: new(rpc.Resp), Files: files}
	if err := msg.Resp.Decode(c.in[:n]); err != nil {
		msg.closeFiles()
		return nil, &Error{Stage: "receive", Kind: ErrTransport, Err: err}
	}
	return msg, nil
}

// receive waits for a packet and takes it from the socket.
func (c *packetConn) receive(ctx context.Context) (n int, files []*os.File, recvErr error) {
	if ctx.Err() == nil && c.early(func(fd int) { n, files, recvErr = c.takeSoon(fd) }) && !errors.Is(recvErr, unix.EAGAIN) {
		return n, files, recvErr
	}
	if err := c.enlist(); err != nil {
		return 0, nil, err
	}
	defer c.until(ctx)()
	try := func(fd uintptr) bool {
		n, files, recvErr = c.take(int(fd))
		if errors.Is(recvErr, unix.EAGAIN) && c.peerGone() {
			// What it sent before it died may have come since.
			if n, files, recvErr = c.take(int(fd)); errors.Is(recvErr, unix.EAGAIN) {
				recvErr = io.ErrUnexpectedEOF
			}
		}
		return !errors.Is(recvErr, unix.EAGAIN)
	}
	var err error
	if c.wake == nil {
		err = c.raw.Read(try)
	} else {
		err = c.wakeRaw.Read(func(uintptr) (done bool) {
			if controlErr := c.raw.Control(func(fd uintptr) { done = try(fd) }); controlErr != nil {
				recvErr, done = controlErr, true
			}
			return done
		})
	}
	return n, files, c.ioError(ctx, err, recvErr)
}

// takeSoon is take, once the socket is readable or was not soon.
func (c *packetConn) takeSoon(fd int) (n int, files []*os.File, err error) {
	n, files, err = c.take(fd)
	if !errors.Is(err, unix.EAGAIN) || c.prompt == nil {
		return n, files, err
	}
	defer c.prompt.Add(-1)
	if c.prompt.Add(1) > maxPrompt {
		return n, files, err
	}
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(soon.Milliseconds()))
	return c.take(fd)
}

var errTooLong = errors.New("the peer's message is too long")

// take is Recv's work once the socket is readable.
func (c *packetConn) take(fd int) (int, []*os.File, error) {
	size, err := retryEINTR(func() (int, error) {
		n, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return n, err
	})
	switch {
	case err != nil:
		return 0, nil, err
	case size == 0: // the end, or an empty packet, which no message is
		return 0, nil, io.ErrUnexpectedEOF
	case size > rpc.MaxMessage:
		return 0, nil, fmt.Errorf("%w: %d bytes, at most %d are accepted", errTooLong, size, rpc.MaxMessage)
	case size > len(c.in):
		c.in = make([]byte, max(size, 4096))
	}
	if c.oob == nil {
		c.oob = make([]byte, unix.CmsgSpace(maxFiles*4))
	}
	var oobn, flags int
	n, err := retryEINTR(func() (n int, err error) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, c.in, c.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		return n, err
	})
	if err != nil {
		return 0, nil, err
	}
	files, err := passedFiles(c.oob[:oobn])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("descriptors that came with a message were lost: %w", unix.EMFILE)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return 0, nil, err
	}
	return n, files, nil
}

func passedFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range list {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "from the peer"))
		}
	}
	return files, nil
}

func retryEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
