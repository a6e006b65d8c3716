package criu

import (
	"context"
	"os"

	"stasis.example/criu/rpc"
)

// DumpResult is the answer to a dump.
type DumpResult struct {
	// Restored is true in the restored copy of a process that dumped itself: the call that dumped it returns a second
	// time there.
	Restored bool
}

// Dump checkpoints the process tree below o.PID into the images directory. Unless LeaveRunning or LeaveStopped is set
// the tree is killed when that is done. A dump that fails leaves the tree as it was.
func (c *Client) Dump(ctx context.Context, o DumpOptions) (DumpResult, error) {
	e := newEncoder()
	e.needPID(o.PID)
	return c.dump(ctx, operation{name: "dump", pid: o.PID, enc: e, notify: o.Notify, writes: true}, &o)
}

// DumpSelf checkpoints the calling process with all below it. It returns with Restored set in every copy that is
// restored; in the original it returns if the dump failed or LeaveRunning is set, else the original is gone.
//
// With a [Swrk] transport the peer is started outside the caller's process tree and leaves no zombie. What else the
// process has open must be something that CRIU can dump. There are no notifications, which a frozen process could not
// answer, and a context can end the call only before and after the freeze.
func (c *Client) DumpSelf(ctx context.Context, o DumpOptions) (DumpResult, error) {
	e := newEncoder()
	if o.PID != 0 && o.PID != os.Getpid() {
		e.problem("PID is %d; DumpSelf dumps the calling process, which needs no PID", o.PID)
	}
	if o.Notify != nil {
		e.problem("Notify is set; a process that is frozen to be dumped cannot answer notifications")
	}
	o.PID = 0 // on the wire, no pid means the caller
	return c.dump(ctx, operation{name: "self-dump", pid: os.Getpid(), enc: e, writes: true, call: Call{SelfDump: true}}, &o)
}

func (c *Client) dump(ctx context.Context, op operation, o *DumpOptions) (DumpResult, error) {
	o.encode(op.enc)
	op.enc.checkDump(o)
	msg, err := c.do(ctx, op, &rpc.Req{Type: rpc.ReqDump})
	if err != nil {
		return DumpResult{}, err
	}
	msg.closeFiles()
	d := msg.Resp.Dump
	return DumpResult{Restored: d != nil && d.Restored != nil && *d.Restored}, nil
}

// PreDump dumps the memory of the tree below o.PID once and lets it run on; a later Dump with ParentImages needs to
// write only what changed since. The kernel has to be able to track memory changes: see [Client.Features].
func (c *Client) PreDump(ctx context.Context, o PreDumpOptions) error {
	e := newEncoder()
	e.needPID(o.PID)
	o.encode(e)
	e.needImages()
	op := operation{name: "pre-dump", pid: o.PID, enc: e, notify: o.Notify, writes: true}
	msg, err := c.do(ctx, op, &rpc.Req{Type: rpc.ReqSinglePreDump})
	if err != nil {
		return err
	}
	msg.closeFiles()
	return nil
}

func (e *encoder) needPID(pid int) {
	if pid <= 0 {
		e.problem("PID is %d; it must name the root of the tree to be dumped", pid)
	}
}

func (e *encoder) needImages() {
	if e.imgDir == nil && e.opts.ImagesDir == nil && len(e.problems) == 0 {
		e.problem("no images directory is set: one of ImagesDir, ImagesDirFile and PeerImagesDir is needed")
	}
	e.checkLogFile()
}

func (e *encoder) checkDump(o *DumpOptions) {
	e.needImages()
	if o.LeaveRunning && o.LeaveStopped {
		e.problem("LeaveRunning and LeaveStopped exclude each other")
	}
	if o.LazyPages && o.PageServer == nil {
		e.problem("LazyPages needs PageServer: the address that memory is served at")
	}
}
