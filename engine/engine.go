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
	"stasis.example/engine/internal/ceiling"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
)

// Engine is the built-in engine. It is safe for concurrent use.
type Engine struct {
	kernel    *linux.Kernel
	oldPages  bool           // as kernels before 6.7 want it; for tests
	otherVDSO bool           // take every vDSO for another kernel's; for tests
	without   []ceiling.Rule // that tests switch off
	settings  Settings
}

// New returns the engine.
func New() *Engine { return &Engine{kernel: new(linux.Kernel)} }

// String names the engine for messages.
func (e *Engine) String() string { return "the built-in engine" }

// ChecksPages tells a client that a restore refuses images whose pages are not all there.
func (e *Engine) ChecksPages() bool { return true }

// Open starts a conversation.
func (e *Engine) Open(ctx context.Context, call criu.Call) (criu.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		asked bool
		what  string
	}{
		{call.SelfDump && call.Caller == nil, "a process cannot dump itself in process; use a service or a swrk child"},
		{call.ExecCmd, "it does not turn into other programs"},
		// A child of the caller's is one of this process's, or one of its parent's. There are no others to be had.
		{call.Sibling && call.Caller != nil && call.Caller.PID != os.Getppid(), "it cannot make a process the child of one that has not started it"},
	} {
		if c.asked {
			return nil, &criu.Error{Op: call.Op.String(), Stage: "connect", Peer: e.String(), Kind: criu.ErrUnsupported, Err: errors.New(c.what)}
		}
	}
	return &conn{engine: e, call: call, messages: make(chan *criu.Message), closed: make(chan struct{})}, nil
}

// A session is what a request is answered with beside its options.
type session struct {
	// call says on whose behalf the request is made, and what it rests on.
	call criu.Call
	// notify tells of a stage and returns what the answer says; an error if whoever was told refuses to go on. The pid is that of
	// the root of a restored tree, 0 where there is none to be told of. Files go along, and stay the caller's of notify.
	notify func(ctx context.Context, stage string, pid int, files ...*os.File) (*rpc.Opts, error)
}

// ofCaller reports whether a pid means the process that asks: its own number, or none.
func (s *session) ofCaller(pid *int32) bool {
	return s.call.Caller != nil && (value(pid) == 0 || int(*pid) == s.call.Caller.PID)
}

// allowed returns what holds a tree against the rights of whoever it is restored for; nil where it is restored with their own:
// in their process, or in one that they have started.
func (s *session) allowed(without []ceiling.Rule) func(*snapshot.Tree) error {
	c := s.call.Caller
	if c == nil || c.Parent {
		return nil
	}
	return func(tree *snapshot.Tree) error {
		client, err := ceiling.Read(c.PID, c.UID, c.GID, c.Groups)
		if err != nil {
			return fmt.Errorf("what the client may have cannot be found out: %w", err)
		}
		// All that was read is the client's only if it has lived until now.
		if c.PIDFD != nil {
			if err := unix.PidfdSendSignal(int(c.PIDFD.Fd()), 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("the client, process %d, is gone: %w", c.PID, err)
			}
		}
		return ceiling.Check(tree, client, without...)
	}
}

// restoredAnswer is what a process that has asked for its own dump hears when it is restored.
func restoredAnswer() []byte {
	return (&rpc.Resp{Type: rpc.ReqDump, Success: true, Dump: &rpc.DumpResp{Restored: new(true)}}).Append(nil)
}

// conn is a conversation. The work is done on a goroutine of its own, so that notifications can be answered meanwhile.
type conn struct {
	engine   *Engine
	call     criu.Call
	messages chan *criu.Message
	closed   chan struct{}

	work sync.WaitGroup

	mu       sync.Mutex
	abort    context.CancelFunc // of the work at hand
	asked    bool               // there was a request
	busy     bool               // it has no answer yet
	answered chan<- *rpc.Req    // takes the answer to a notification; nil where there is none that waits for one
	isClosed bool
}

// FileNumber is the descriptor's own number: the peer is this process.
func (c *conn) FileNumber(i int) int { return int(c.call.Files[i].Fd()) }

// Send takes a request, or the answer to a notification.
func (c *conn) Send(ctx context.Context, req *rpc.Req) error {
	c.mu.Lock()
	if c.isClosed {
		c.mu.Unlock()
		return c.fail("send", criu.ErrClosed, nil)
	}
	if req.Type == rpc.ReqNotify {
		answered := c.answered
		c.answered = nil
		c.mu.Unlock()
		if answered == nil {
			return c.fail("send", criu.ErrProtocol, errors.New("an answer to a notification that there was not"))
		}
		answered <- req // there is room: the work may have gone on meanwhile, because its time was up
		return nil
	}
	defer c.mu.Unlock()
	if c.busy {
		return c.fail("send", criu.ErrProtocol, errors.New("a request while another is being answered"))
	}
	// The work is not bound by the context of this call, which is over soon.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.abort, c.asked, c.busy, c.answered = cancel, true, true, nil
	c.work.Go(func() {
		defer cancel()
		c.answer(work, req)
	})
	return nil
}

// answer does what a request asks, and answers.
func (c *conn) answer(ctx context.Context, req *rpc.Req) {
	resp, err := c.engine.serve(ctx, req, &session{call: c.call, notify: c.notify})
	if resp == nil {
		resp = &rpc.Resp{Type: req.Type}
	}
	if err != nil {
		resp.Success = false
		resp.CrErrno = new(int32(errnoOf(err)))
		if resp.CrErrmsg == nil {
			resp.CrErrmsg = new(err.Error())
		}
	}
	c.mu.Lock()
	c.busy = false // before the answer, upon which the next request may follow
	c.mu.Unlock()
	_ = c.deliver(context.WithoutCancel(ctx), &criu.Message{Resp: resp, Detail: err})
}

// deliver hands a message to Recv, unless the conversation is over or the context ends.
func (c *conn) deliver(ctx context.Context, m *criu.Message) error {
	select {
	case c.messages <- m:
		return nil
	case <-c.closed:
		return criu.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notify tells of a stage and waits for the answer.
func (c *conn) notify(ctx context.Context, stage string, pid int, files ...*os.File) (*rpc.Opts, error) {
	n := &rpc.Notify{Script: &stage}
	if pid != 0 {
		n.PID = new(int32(pid))
	}
	sent, err := duplicates(files)
	if err != nil {
		return nil, err
	}
	answered := make(chan *rpc.Req, 1)
	c.mu.Lock()
	c.answered = answered
	c.mu.Unlock()
	if err := c.deliver(ctx, &criu.Message{Resp: &rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: n}, Files: sent}); err != nil {
		closeFiles(sent)
		return nil, err
	}
	select {
	case answer := <-answered:
		if answer.NotifySuccess == nil || !*answer.NotifySuccess {
			return nil, fmt.Errorf("%w at the stage %s", errRefused, stage)
		}
		return answer.Opts, nil
	case <-c.closed:
		return nil, criu.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// duplicates are for whoever receives a message, whose they are.
func duplicates(files []*os.File) (list []*os.File, err error) {
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			closeFiles(list)
			return nil, os.NewSyscallError("dup", err)
		}
		list = append(list, os.NewFile(uintptr(fd), f.Name()))
	}
	return list, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
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

// errnoOf returns the errno that says best what an error is. Every failure has one, since there are callers who are shown no more.
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
	if errors.Is(err, errRefused) || errors.Is(err, context.Canceled) {
		return unix.ECANCELED
	}
	return unix.EINVAL // what was asked about is not as it should be, such as images
}
