package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// sendPatience is how long a client may leave its answer unread once its socket's buffer is full.
const sendPatience = 30 * time.Second

var (
	errTooLong   = errors.New("the request is too long")
	errMalformed = errors.New("the request cannot be read")
)

// packets is the server's end of a conversation: requests come in, responses go out. One goroutine may use it.
type packets struct {
	fd int
	// The runtime's poller, which to enlist with takes longer than to answer a small request, has it only when there is something
	// to wait for.
	file *os.File
	raw  syscall.RawConn
	in   []byte // reused: what is decoded from it is copied
	out  []byte
	// waits is called when the first request is not there, and none has come soon; nil is nobody.
	waits func()
}

// soon is how long a client that has connected takes at most to send its request, as a rule.
const soon = 5 * time.Millisecond

// newPackets takes over a connected SOCK_SEQPACKET socket.
func newPackets(fd int) *packets { return &packets{fd: fd} }

// enlist has the runtime's poller wait for the socket.
func (p *packets) enlist() error {
	if p.file != nil {
		return nil
	}
	if err := unix.SetNonblock(p.fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	p.file = os.NewFile(uintptr(p.fd), "client")
	var err error
	p.raw, err = p.file.SyscallConn()
	return err
}

// close hangs up. What the client has sent and nobody will read is taken first, or its next read would find that the
// connection was reset and not the answer.
func (p *packets) close() {
	for range 16 {
		if n, err := receive(p.fd, nil, unix.MSG_TRUNC); err != nil || n == 0 {
			break
		}
	}
	if p.file == nil {
		unix.Close(p.fd)
	} else {
		p.file.Close()
	}
}

// inode is the number of this end's socket.
func (p *packets) inode() (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(p.fd, &st)
	return st.Ino, os.NewSyscallError("fstat", err)
}

// peek waits for the next request and leaves it in the socket, for drop to take or for a process that this one turns
// into. The end of the conversation is io.EOF. Descriptors that a client sends along are never received.
func (p *packets) peek(ctx context.Context) (*rpc.Req, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	n, err := p.look()
	if errors.Is(err, unix.EAGAIN) && p.waits != nil {
		unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(soon.Milliseconds()))
		if n, err = p.look(); errors.Is(err, unix.EAGAIN) {
			p.waits()
		}
	}
	p.waits = nil
	if errors.Is(err, unix.EAGAIN) {
		n, err = p.await(ctx)
	}
	switch {
	case errors.Is(err, unix.ECONNRESET):
		return nil, io.EOF // it closed its end with answers of ours unread
	case err != nil:
		return nil, err
	}
	req := new(rpc.Req)
	if err := req.Decode(p.in[:n]); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return req, nil
}

// await is look once there is something.
func (p *packets) await(ctx context.Context) (n int, err error) {
	if err := p.enlist(); err != nil {
		return 0, err
	}
	defer p.until(ctx)()
	pollErr := p.raw.Read(func(uintptr) bool {
		n, err = p.look()
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case pollErr != nil && ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case pollErr != nil:
		return 0, pollErr
	}
	return n, err
}

// look reads the request that is there without taking it, and returns its length.
func (p *packets) look() (int, error) {
	if p.in == nil {
		p.in = make([]byte, 4096)
	}
	size, err := receive(p.fd, p.in, unix.MSG_PEEK|unix.MSG_TRUNC)
	switch {
	case err != nil:
		return 0, err
	case size == 0: // the end, or an empty packet, which no request is
		return 0, io.EOF
	case size > rpc.MaxMessage:
		return 0, fmt.Errorf("%w: %d bytes, at most %d are accepted", errTooLong, size, rpc.MaxMessage)
	case size <= len(p.in):
		return size, nil
	}
	p.in = make([]byte, size)
	return receive(p.fd, p.in, unix.MSG_PEEK)
}

// drop takes the request that peek has seen.
func (p *packets) drop() error {
	_, err := receive(p.fd, nil, unix.MSG_TRUNC)
	return err
}

// receive does not wait.
func receive(fd int, buf []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, buf, flags|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// next is peek and drop.
func (p *packets) next(ctx context.Context) (*rpc.Req, error) {
	req, err := p.peek(ctx)
	if err != nil {
		return nil, err
	}
	return req, p.drop()
}

// send sends a response with files.
func (p *packets) send(resp *rpc.Resp, files []*os.File) error {
	p.out = resp.Append(p.out[:0])
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	err := p.transmit(oob)
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if err := p.enlist(); err != nil {
		return err
	}
	p.file.SetWriteDeadline(time.Now().Add(sendPatience))
	pollErr := p.raw.Write(func(uintptr) bool {
		err = p.transmit(oob)
		return !errors.Is(err, unix.EAGAIN)
	})
	if pollErr != nil {
		return pollErr
	}
	return err
}

func (p *packets) transmit(oob []byte) error {
	for {
		err := unix.Sendmsg(p.fd, p.out, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// until lets ctx end a wait for a request. The function that it returns must be called when the wait is over.
func (p *packets) until(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	var fired sync.WaitGroup
	fired.Add(1)
	cancel := context.AfterFunc(ctx, func() {
		defer fired.Done()
		p.file.SetReadDeadline(time.Unix(1, 0)) // in the past: wakes who waits
	})
	return func() {
		if !cancel() {
			fired.Wait()
			p.file.SetReadDeadline(time.Time{})
		}
	}
}

// errClientGone is the end of a context that whileThere has made.
var errClientGone = errors.New("the client has closed the conversation")

// whileThere returns a context that ends when the client has been gone for the grace period. The function that it
// returns must be called before anything else is done with the socket.
func (p *packets) whileThere(ctx context.Context, grace time.Duration) (context.Context, func()) {
	if err := p.enlist(); err != nil {
		return ctx, func() {} // then there is nobody who watches
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watch, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !p.hungUp(watch) {
			return
		}
		select {
		case <-time.After(grace):
			cancel(errClientGone)
		case <-watch.Done():
		}
	}()
	return ctx, func() {
		stop()
		<-done
		cancel(nil)
	}
}

// hungUp waits until the client has closed its end, or has sent something, or ctx ends. It reports the first.
func (p *packets) hungUp(ctx context.Context) (gone bool) {
	defer p.until(ctx)()
	p.raw.Read(func(fd uintptr) bool {
		n, err := receive(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		gone = err == nil && n == 0 || err != nil && !errors.Is(err, unix.EAGAIN)
		return !errors.Is(err, unix.EAGAIN)
	})
	return gone
}
