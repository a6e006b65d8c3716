package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// Client performs operations through a Transport. It is safe for concurrent use.
type Client struct {
	transport Transport
	grace     time.Duration
}

// Option is a setting of a Client.
type Option func(*Client)

// DefaultGrace is how long a cancelled operation may take to end by itself.
const DefaultGrace = 5 * time.Second

// WithGrace sets how long a peer has, after the context was cancelled or a callback refused, to undo what it did before
// it is killed.
func WithGrace(d time.Duration) Option { return func(c *Client) { c.grace = d } }

// New returns a client of the transport's peer.
func New(t Transport, opts ...Option) *Client {
	c := &Client{transport: t, grace: DefaultGrace}
	for _, o := range opts {
		o(c)
	}
	return c
}

// operation is what one call needs to know about itself.
type operation struct {
	name   string // for messages
	pid    int
	enc    *encoder // nil where there are no options
	notify func(context.Context, *Event) error
	writes bool // images are written: a full or read-only directory explains a failure
	call   Call
}

// conversation is an open conversation in the course of an operation.
type conversation struct {
	operation
	client *Client
	conn   Conn
	log    *logWatch
	cgroup *freezer // that the peer freezes
	stage  string   // the last notification
	// over is set once the context has ended or a callback has refused: what is left of the operation then has to end
	// before the context over.ctx does.
	over *ending
}

// ending is why and by when an operation must end.
type ending struct {
	ctx   context.Context
	stop  context.CancelFunc
	cause error
	kind  error
}

// open checks the options and starts the conversation.
func (c *Client) open(ctx context.Context, op operation) (*conversation, error) {
	v := &conversation{operation: op, client: c}
	if op.enc != nil {
		if err := op.enc.err(); err != nil {
			return nil, v.fail(&Error{Stage: "options", Kind: ErrOptions, Errno: errnoOf(err), Err: err})
		}
		v.call.Files = op.enc.files
	}
	if ctx.Err() != nil {
		return nil, v.fail(connectError("", context.Cause(ctx)))
	}
	conn, err := c.transport.Open(ctx, v.call)
	if err != nil {
		return nil, v.fail(err)
	}
	v.conn = conn
	if op.enc != nil {
		op.enc.patch(conn.FileNumber)
	}
	return v, nil
}

func (v *conversation) close() {
	v.endOver()
	v.conn.Close()
}

func (v *conversation) endOver() {
	if v.over != nil {
		v.over.stop()
	}
}

// do opens a conversation for one request and closes it again.
func (c *Client) do(ctx context.Context, op operation, req *rpc.Req) (*Message, error) {
	if op.enc != nil {
		defer op.enc.close()
		req.Opts = op.enc.opts
	}
	op.call.Op = req.Type
	v, err := c.open(ctx, op)
	if err != nil {
		return nil, err
	}
	defer v.close()
	return v.ask(ctx, req)
}

// ask sends a request and sees it through to its response.
func (v *conversation) ask(ctx context.Context, req *rpc.Req) (*Message, error) {
	if v.enc != nil {
		name := ""
		if v.enc.opts.LogFile != nil {
			name = *v.enc.opts.LogFile
		}
		v.log = watchLog(v.enc.logDir, name)
		if cgroup := v.enc.opts.FreezeCgroup; cgroup != nil {
			v.cgroup = watchFreezer(*cgroup)
		}
	}
	if req.Opts != nil && (v.notify != nil || ctx.Done() != nil) && takesNotifications(req.Type) && !v.call.SelfDump {
		// A notification is the only place where a peer can be told to stop, so a context that can end wants them. Not so
		// a process that dumps itself: it is frozen when they come, and both would wait for ever.
		req.Opts.NotifyScripts = new(true)
	}
	if err := v.send(ctx, req); err != nil {
		return nil, v.fail(err)
	}
	for {
		msg, err := v.recv(ctx)
		if err != nil {
			return nil, v.fail(err)
		}
		if msg.Resp.Type == rpc.ReqNotify {
			if err := v.answer(ctx, msg); err != nil {
				return nil, v.fail(err)
			}
			continue
		}
		if err := v.judge(req.Type, msg); err != nil {
			msg.closeFiles()
			return nil, v.fail(err)
		}
		return msg, nil
	}
}

func takesNotifications(t rpc.ReqType) bool {
	switch t {
	case rpc.ReqDump, rpc.ReqPreDump, rpc.ReqSinglePreDump, rpc.ReqRestore:
		return true
	}
	return false
}

// recv waits for a message, first as long as the context lasts, then for the grace period, then it kills.
func (v *conversation) recv(ctx context.Context) (*Message, error) {
	if v.over == nil {
		msg, err := v.conn.Recv(ctx)
		if err == nil || ctx.Err() == nil {
			return msg, err
		}
		v.end(ctx, context.Cause(ctx), ErrFailed)
	}
	msg, err := v.conn.Recv(v.over.ctx)
	if err != nil && v.over.ctx.Err() != nil {
		return nil, v.kill()
	}
	return msg, err
}

// send sends a packet with the same patience. A peer may hang in not reading, too.
func (v *conversation) send(ctx context.Context, req *rpc.Req) error {
	if v.over == nil {
		err := v.conn.Send(ctx, req)
		if err == nil || ctx.Err() == nil {
			return err
		}
		v.end(ctx, context.Cause(ctx), ErrFailed)
		if req.Type != rpc.ReqNotify {
			return &Error{Stage: "send", Kind: ErrFailed, Err: v.over.cause} // nothing was asked yet
		}
		req.NotifySuccess = new(false) // what was not sent as consent goes as refusal
	}
	err := v.conn.Send(v.over.ctx, req)
	if err != nil && v.over.ctx.Err() != nil {
		return v.kill()
	}
	return err
}

// kill is the end of all patience.
func (v *conversation) kill() error {
	fate := "its connection was closed, and it may go on by itself"
	killed := v.conn.Abort()
	if killed {
		fate = "it was killed, and what it had begun to restore with it"
	}
	err := fmt.Errorf("%w; the peer did not stop within %v: %s", v.over.cause, v.client.grace, fate)
	if killed {
		err = also(err, v.cgroup.thaw())
	}
	return &Error{Stage: v.stage, Kind: v.over.kind, Err: err}
}

// also adds a second error to a first, on the same line; either may be nil.
func also(first, second error) error {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return fmt.Errorf("%w; %w", first, second)
}

// end starts the grace period.
func (v *conversation) end(ctx context.Context, cause, kind error) {
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), v.client.grace)
	v.over = &ending{ctx: grace, stop: stop, cause: cause, kind: kind}
}

// answer hands a notification to the callback and tells the peer whether to go on.
func (v *conversation) answer(ctx context.Context, msg *Message) error {
	ev := &Event{}
	if n := msg.Resp.Notify; n != nil {
		if n.Script != nil {
			ev.Name = *n.Script
		}
		if n.PID != nil {
			ev.PID = int(*n.PID)
		}
	}
	if len(msg.Files) > 0 {
		ev.File, msg.Files = msg.Files[0], msg.Files[1:]
	}
	defer func() {
		msg.closeFiles()
		if ev.File != nil {
			ev.File.Close()
		}
	}()
	v.stage = ev.Name
	if v.over == nil && v.notify != nil && ctx.Err() == nil {
		if err := v.notify(ctx, ev); err != nil {
			v.end(ctx, err, ErrRefused)
		}
	}
	if v.over == nil && ctx.Err() != nil { // before the callback or while it ran
		v.end(ctx, context.Cause(ctx), ErrFailed)
	}
	reply := &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(v.over == nil)}
	if len(ev.External) > 0 {
		reply.Opts = &rpc.Opts{ImagesDirFD: -1, External: ev.External}
	}
	return v.send(ctx, reply)
}

// judge decides what a response means.
func (v *conversation) judge(asked rpc.ReqType, msg *Message) error {
	r := msg.Resp
	e := &Error{Stage: v.stage}
	if r.CrErrno != nil {
		e.Errno = syscall.Errno(*r.CrErrno)
	}
	if r.CrErrmsg != nil {
		e.Message = *r.CrErrmsg
	}
	switch {
	case r.Type == rpc.ReqEmpty && !r.Success:
		e.Kind = ErrUnsupported
		e.Err = fmt.Errorf("the peer does not know the request %v", asked)
	case r.Type != asked && !(asked == rpc.ReqPageServerChild && r.Type == rpc.ReqPageServer):
		e.Kind = ErrProtocol
		e.Err = fmt.Errorf("the peer answered %v to the request %v", r.Type, asked)
	case !r.Success:
		e.Kind, e.Err = ErrFailed, msg.Detail
		if v.over != nil {
			e.Kind, e.Err = v.over.kind, v.over.cause
		}
	default:
		return nil // an error text that comes with success is a warning of the log's, not a failure
	}
	return e
}

// fail completes an error with what this operation knows.
func (v *conversation) fail(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Kind: ErrTransport, Errno: errnoOf(err), Err: err}
	}
	e.Op, e.PID, e.Peer = v.name, v.pid, v.client.transport.String()
	if v.stage != "" {
		e.Stage = v.stage
	}
	if errors.Is(e.Kind, ErrTransport) { // a peer that died froze what it froze
		e.Err = also(e.Err, v.cgroup.thaw())
	}
	if v.over != nil && !errors.Is(e, v.over.cause) {
		// The peer broke off instead of answering: the reason is still that it was told to.
		e.Kind, e.Err = v.over.kind, also(v.over.cause, e.Err)
	}
	if e.Stage != "options" && e.Stage != "connect" {
		e.Log, e.LogFile = v.log.errors()
		v.blameDirectory(e)
		v.blameProcess(e)
	}
	return e
}

// blameDirectory names a directory that cannot be written as the reason, where it is: CRIU can then not even say so in
// its log.
func (v *conversation) blameDirectory(e *Error) {
	if !v.writes || v.enc == nil || v.enc.imgDir == nil || e.Err != nil {
		return
	}
	dir := int(v.enc.imgDir.Fd())
	var fs unix.Statfs_t
	err := unix.Faccessat(dir, ".", unix.W_OK, unix.AT_EACCESS)
	switch {
	case unix.Fstatfs(dir, &fs) == nil && full(&fs) && (e.Errno == 0 || e.Errno == unix.ENOSPC || len(e.Log) == 0):
		e.Errno = unix.ENOSPC
		e.Err = errors.New("the file system of the images directory is full; make room or choose another directory")
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES) && len(e.Log) == 0:
		e.Errno = errnoOf(err)
		e.Err = &os.PathError{Op: "write to", Path: v.enc.imgPath, Err: err}
	default:
		return
	}
	e.Resource = v.enc.imgPath
}

// full reports whether a file system has no blocks or no inodes left; some do not count the one or the other.
func full(fs *unix.Statfs_t) bool {
	return fs.Blocks > 0 && fs.Bavail == 0 || fs.Files > 0 && fs.Ffree == 0
}

// Do sends a request as it is, with the descriptors files, and returns the response: for requests and fields that this
// package has no name for. notify may be nil. Descriptor numbers in the request must be right already. A response that
// reports failure is an error.
func (c *Client) Do(ctx context.Context, req *rpc.Req, notify func(context.Context, *Event) error) (*rpc.Resp, error) {
	copied := *req
	if req.Opts != nil {
		opts := *req.Opts
		copied.Opts = &opts
	}
	op := operation{name: req.Type.String(), notify: notify, call: Call{Op: req.Type}}
	v, err := c.open(ctx, op)
	if err != nil {
		return nil, err
	}
	defer v.close()
	msg, err := v.ask(ctx, &copied)
	if err != nil {
		return nil, err
	}
	msg.closeFiles()
	return msg.Resp, nil
}
