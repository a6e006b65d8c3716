//go:build amd64

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/linux"
)

// Engine is the built-in engine. It is safe for concurrent use.
type Engine struct {
	kernel   *linux.Kernel
	oldPages bool
}

// New returns the engine.
func New() *Engine { return &Engine{kernel: new(linux.Kernel)} }

// String names the engine for messages.
func (e *Engine) String() string { return "the built-in engine" }

// Open starts a conversation.
func (e *Engine) Open(ctx context.Context, call criu.Call) (criu.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		asked bool
		what  string
	}{
		{call.SelfDump, "a process cannot dump itself in process; use a service or a swrk child"},
		{call.Caller != nil, "it acts for nobody but this process"},
		{call.ExecCmd, "it does not turn into other programs"},
		{call.Sibling, "it does not restore processes as siblings"},
	} {
		if c.asked {
			return nil, &criu.Error{Op: call.Op.String(), Stage: "connect", Peer: e.String(), Kind: criu.ErrUnsupported, Err: errors.New(c.what)}
		}
	}
	return &conn{engine: e, files: call.Files, messages: make(chan *criu.Message), answers: make(chan *rpc.Req), closed: make(chan struct{})}, nil
}

// conn is a conversation. The work is done on a goroutine of its own, so that notifications can be answered meanwhile.
type conn struct {
	engine   *Engine
	files    []*os.File
	messages chan *criu.Message
	answers  chan *rpc.Req // to notifications
	closed   chan struct{}

	work sync.WaitGroup

	mu       sync.Mutex
	abort    context.CancelFunc // of the work at hand
	asked    bool               // there was a request
	busy     bool               // it has no answer yet
	notified bool               // a notification waits for its answer
	isClosed bool
}

// FileNumber is the descriptor's own number: the peer is this process.
func (c *conn) FileNumber(i int) int { return int(c.files[i].Fd()) }

// Send takes a request, or the answer to a notification.
func (c *conn) Send(ctx context.Context, req *rpc.Req) error {
	c.mu.Lock()
	if c.isClosed {
		c.mu.Unlock()
		return c.fail("send", criu.ErrClosed, nil)
	}
	if req.Type == rpc.ReqNotify {
		waiting := c.notified
		c.notified = false
		c.mu.Unlock()
		if !waiting {
			return c.fail("send", criu.ErrProtocol, errors.New("an answer to a notification that there was not"))
		}
		select {
		case c.answers <- req:
			return nil
		case <-c.closed:
			return c.fail("send", criu.ErrClosed, nil)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer c.mu.Unlock()
	if c.busy {
		return c.fail("send", criu.ErrProtocol, errors.New("a request while another is being answered"))
	}
	// The work is not bound by the context of this call, which is over soon.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.abort, c.asked, c.busy = cancel, true, true
	c.work.Go(func() {
		defer cancel()
		c.answer(work, req)
	})
	return nil
}

// answer does what a request asks, and answers.
func (c *conn) answer(ctx context.Context, req *rpc.Req) {
	resp, err := c.engine.serve(ctx, req, c.notify)
	if resp == nil {
		resp = &rpc.Resp{Type: req.Type}
	}
	if err != nil {
		resp.Success = false
		if errno := errnoOf(err); errno != 0 {
			resp.CrErrno = new(int32(errno))
		}
		if resp.CrErrmsg == nil {
			resp.CrErrmsg = new(err.Error())
		}
	}
	c.mu.Lock()
	c.busy = false // before the answer, upon which the next request may follow
	c.mu.Unlock()
	c.deliver(&criu.Message{Resp: resp, Detail: err})
}

// deliver hands a message to Recv, unless the conversation is over.
func (c *conn) deliver(m *criu.Message) bool {
	select {
	case c.messages <- m:
		return true
	case <-c.closed:
		return false
	}
}

// notify tells of a stage and waits for the answer.
func (c *conn) notify(ctx context.Context, stage string) error {
	n := &rpc.Notify{Script: &stage}
	c.mu.Lock()
	c.notified = true
	c.mu.Unlock()
	if !c.deliver(&criu.Message{Resp: &rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: n}}) {
		return criu.ErrClosed
	}
	select {
	case answer := <-c.answers:
		if answer.NotifySuccess == nil || !*answer.NotifySuccess {
			return fmt.Errorf("%w at the stage %s", errRefused, stage)
		}
		return nil
	case <-c.closed:
		return criu.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errRefused = errors.New("the caller refused to go on")

// Recv waits for the next message.
func (c *conn) Recv(ctx context.Context) (*criu.Message, error) {
	c.mu.Lock()
	idle := !c.asked
	c.mu.Unlock()
	if idle {
		return nil, c.fail("receive", criu.ErrProtocol, errors.New("nothing was asked"))
	}
	select {
	case m := <-c.messages:
		return m, nil
	case <-c.closed:
		return nil, c.fail("receive", criu.ErrTransport, criu.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Abort ends the work at hand, which puts back what it has changed.
func (c *conn) Abort() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.abort == nil {
		return false
	}
	c.abort()
	return true
}

// Close ends the conversation, and waits until the work at hand has put back what it changed.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.isClosed {
		c.mu.Unlock()
		return nil
	}
	c.isClosed = true
	close(c.closed)
	if c.abort != nil {
		c.abort()
	}
	c.mu.Unlock()
	c.work.Wait()
	return nil
}

func (c *conn) fail(stage string, kind, err error) error {
	return &criu.Error{Op: "conversation", Stage: stage, Peer: c.engine.String(), Kind: kind, Err: err}
}

// errnoOf returns the errno that says best what an error is, 0 for none.
func errnoOf(err error) unix.Errno {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unix.ETIMEDOUT
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return unix.ENOTSUP
	}
	return 0
}
