package criu

import (
	"context"
	"errors"
	"strings"

	"stasis.example/criu/rpc"
)

// RestoreResult is the answer to a restore.
type RestoreResult struct {
	// PID of the restored root task, in the peer's pid namespace.
	PID int
}

// Restore brings the tree in the images directory back. The restored root task is not the caller's child: it belongs to
// init, or to the service.
//
// Restoring images as root runs what is in them as root: they need to be trusted like a program.
func (c *Client) Restore(ctx context.Context, o RestoreOptions) (RestoreResult, error) {
	pid, err := c.restore(ctx, "restore", &o, false)
	return RestoreResult{PID: pid}, err
}

// RestoreChild brings the tree back with its root task as the calling process' child, and returns a handle to it. The
// peer has to be a child of the caller's too, as with [Swrk].
//
// The caller has to wait for the task, by the handle or otherwise, as for any child.
func (c *Client) RestoreChild(ctx context.Context, o RestoreOptions) (*Process, error) {
	pid, err := c.restore(ctx, "restore as child", &o, true)
	if err != nil {
		return nil, err
	}
	p, err := openProcess(pid)
	if err != nil {
		return nil, &Error{Op: "restore as child", PID: pid, Peer: c.transport.String(), Kind: ErrProtocol, Errno: errnoOf(err), Err: err}
	}
	return p, nil
}

func (c *Client) restore(ctx context.Context, name string, o *RestoreOptions, child bool) (int, error) {
	e := newEncoder()
	o.encode(e)
	e.needImages()
	if child {
		e.opts.RstSibling = new(true)
		if len(o.ExecCmd) > 0 {
			e.problem("ExecCmd makes the peer the parent of the restored tree, which excludes restoring it as the caller's child")
		}
	}
	if e.imgDir != nil && len(e.problems) == 0 && !c.checksPages() {
		if err := checkPages(e.imgDir); err != nil {
			e.close()
			return 0, &Error{Op: name, Peer: c.transport.String(), Kind: ErrFailed, Resource: e.imgPath, Err: err}
		}
	}
	op := operation{name: name, enc: e, notify: o.Notify, call: Call{Sibling: child, ExecCmd: len(o.ExecCmd) > 0}}
	if e.imgDir != nil && len(e.problems) == 0 {
		op.call.TreePIDs = treePIDs(e.imgDir)
	}
	msg, err := c.do(ctx, op, &rpc.Req{Type: rpc.ReqRestore})
	if err != nil {
		return 0, err
	}
	msg.closeFiles()
	if msg.Resp.Restore == nil {
		return 0, &Error{Op: name, Peer: c.transport.String(), Kind: ErrProtocol, Err: errors.New("the peer reported success without a pid")}
	}
	return int(msg.Resp.Restore.PID), nil
}

// checksPages reports whether the peer finds out by itself that pages are missing.
func (c *Client) checksPages() bool {
	t, ok := c.transport.(interface{ ChecksPages() bool })
	return ok && t.ChecksPages()
}

func (e *encoder) checkLogFile() {
	if f := e.opts.LogFile; f != nil && strings.Contains(*f, "/") {
		e.problem("LogFile is %q: it names a file in the work directory and may not contain a slash; set WorkDir instead", *f)
	}
}
