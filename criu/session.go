package criu

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"stasis.example/criu/rpc"
)

// Session holds several requests on one conversation, which saves starting a peer for each. CRIU honours this (keep_open)
// for the requests that Session has methods for; any other gets the end of the conversation instead of an answer, which
// is why Session has no methods for them.
//
// A Session may be used from several goroutines; the requests go one after the other. After a request that failed the
// peer is gone and the session is closed.
type Session struct {
	client *Client

	mu     sync.Mutex
	conn   Conn // nil before the first request and after Close
	closed bool
}

// Session starts a session. Nothing is sent, and no peer is started, before its first request.
func (c *Client) Session() *Session { return &Session{client: c} }

// Close ends the session.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end()
}

func (s *Session) end() error {
	s.closed = true
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}

// Version asks for the peer's version.
func (s *Session) Version(ctx context.Context) (Version, error) {
	msg, err := s.do(ctx, operation{name: "version"}, &rpc.Req{Type: rpc.ReqVersion})
	if err != nil {
		return Version{}, err
	}
	return s.client.version(msg)
}

// Features asks for everything that the peer can report.
func (s *Session) Features(ctx context.Context) (Features, error) {
	msg, err := s.do(ctx, operation{name: "feature check"}, featureRequest())
	if err != nil {
		return Features{}, err
	}
	return s.client.features(msg)
}

// CPUInfoDump is [Client.CPUInfoDump].
func (s *Session) CPUInfoDump(ctx context.Context, o CPUInfoOptions) error {
	_, err := s.client.cpuInfo(ctx, rpc.ReqCPUInfoDump, &o, s.do)
	return err
}

// CPUInfoCheck is [Client.CPUInfoCheck].
func (s *Session) CPUInfoCheck(ctx context.Context, o CPUInfoOptions) error {
	_, err := s.client.cpuInfo(ctx, rpc.ReqCPUInfoCheck, &o, s.do)
	return err
}

// do asks on the session's conversation, which it opens when there is none.
func (s *Session) do(ctx context.Context, op operation, req *rpc.Req) (*Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op.enc != nil {
		defer op.enc.close()
		req.Opts = op.enc.opts
	}
	op.call.Op = req.Type
	if s.closed {
		return nil, &Error{Op: op.name, Peer: s.client.transport.String(), Kind: ErrClosed}
	}
	if req.Type != rpc.ReqWaitPID { // which ends the conversation, being the last that can be asked of a page server
		req.KeepOpen = new(true)
	}
	v := &conversation{operation: op, client: s.client, conn: s.conn}
	if s.conn == nil {
		opened, err := s.client.open(ctx, op)
		if err != nil {
			return nil, err
		}
		v, s.conn = opened, opened.conn
	} else if op.enc != nil {
		switch err := op.enc.err(); {
		case err != nil:
			return nil, v.fail(&Error{Stage: "options", Kind: ErrOptions, Errno: errnoOf(err), Err: err})
		case len(op.enc.files) > 0:
			return nil, v.fail(&Error{Stage: "options", Kind: ErrOptions,
				Err: errors.New("files can be handed to the peer with the first request of a session only")})
		}
	}
	defer v.endOver()
	msg, err := v.ask(ctx, req)
	if err != nil {
		s.end() // CRIU leaves the conversation after a failure
	}
	return msg, err
}

// PageServer is a page server that was started.
type PageServer struct {
	// PID in the peer's pid namespace; 0 where the peer does not tell, which CRIU 4.2.1 does not for a server that is not
	// its child. Not to be passed to kill(2) unseen: 0 means the caller's own process group there.
	PID  int
	Port int

	session *Session // where it is the peer's child
}

// PageServer starts a page server that runs on its own. PageServer in the options says where it listens; the port that
// it got is in the result. It ends with the connection that it served.
func (c *Client) PageServer(ctx context.Context, o PageServerOptions) (*PageServer, error) {
	return c.pageServer(ctx, rpc.ReqPageServer, &o, c.do)
}

// PageServerChild starts a page server as the peer's child, whose end can be waited for. The handle holds the
// conversation open and has to be closed.
func (c *Client) PageServerChild(ctx context.Context, o PageServerOptions) (*PageServer, error) {
	s := c.Session()
	ps, err := c.pageServer(ctx, rpc.ReqPageServerChild, &o, s.do)
	if err != nil {
		s.Close()
		return nil, err
	}
	ps.session = s
	return ps, nil
}

func (c *Client) pageServer(ctx context.Context, t rpc.ReqType, o *PageServerOptions,
	do func(context.Context, operation, *rpc.Req) (*Message, error)) (*PageServer, error) {
	e := newEncoder()
	o.encode(e)
	e.needImages()
	if e.opts.PS == nil {
		e.opts.PS = &rpc.PageServerInfo{Port: new(int32(0))} // any address, any port
	}
	msg, err := do(ctx, operation{name: "page server", enc: e, writes: true}, &rpc.Req{Type: t})
	if err != nil {
		return nil, err
	}
	msg.closeFiles()
	info := msg.Resp.PS
	if info == nil || info.PID == nil {
		return nil, c.protocolError("page server", "the peer reported success without a pid")
	}
	ps := &PageServer{PID: int(*info.PID)}
	if info.Port != nil {
		ps.Port = int(uint16(*info.Port)) // CRIU keeps ports in a signed 16-bit number
	}
	return ps, nil
}

// Wait waits until a page server that is the peer's child has ended, and returns its wait status.
func (p *PageServer) Wait(ctx context.Context) (WaitStatus, error) {
	if p.session == nil {
		return 0, &Error{Op: "wait for page server", Kind: ErrOptions, Err: errors.New("it is not the peer's child; start it with PageServerChild")}
	}
	msg, err := p.session.do(ctx, operation{name: "wait for page server"}, &rpc.Req{Type: rpc.ReqWaitPID, PID: new(uint32(p.PID))})
	if err != nil {
		return 0, err
	}
	msg.closeFiles()
	if msg.Resp.Status == nil {
		return 0, p.session.client.protocolError("wait for page server", "the peer reported success without a status")
	}
	return WaitStatus(*msg.Resp.Status), nil
}

// Close ends the conversation with the peer of a page server that is its child. The server runs on.
func (p *PageServer) Close() error {
	if p.session == nil {
		return nil
	}
	return p.session.Close()
}

// WaitStatus is a status of wait(2).
type WaitStatus int32

// Success reports whether the process exited with status 0.
func (w WaitStatus) Success() bool { return w == 0 }

// ExitStatus is the status that the process exited with, -1 if a signal ended it.
func (w WaitStatus) ExitStatus() int {
	if w&0x7f != 0 {
		return -1
	}
	return int(w>>8) & 0xff
}

// String says how the process ended.
func (w WaitStatus) String() string {
	if sig := int(w & 0x7f); sig != 0 {
		return fmt.Sprintf("ended by signal %d", sig)
	}
	return fmt.Sprintf("exit status %d", w.ExitStatus())
}
