package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/linux"
)

var errNoRequest = errors.New("no request came")

// conversation is one client's, and the one with the peer behind it.
type conversation struct {
	Options
	front  *packets
	client *client
	back   criu.Conn // nil before the first request that needs the peer
	rounds bool      // in pre-dump rounds, which only another round or the dump may follow
}

// job is one request on its way through the peer.
type job struct {
	asked  rpc.ReqType
	call   criu.Call
	tree   *tree // to be looked at once more when it is frozen; nil where there is nothing to look at
	quiet  bool  // the client has not asked for notifications
	killed bool  // the tree is not to live on
	broken error // why the server itself has stopped the peer
	files  []*os.File
}

// converse holds a conversation until the client closes it, breaks the rules or asks for what ends it. Ending ctx lets
// the request that runs come to its end. It reports whether it may have made processes.
func converse(ctx context.Context, front *packets, c *client, o Options) (made bool, err error) {
	v := &conversation{Options: o, front: front, client: c}
	front.waits = o.lasts
	defer v.hangUp()
	first := ctx
	if o.FirstRequest > 0 {
		var cancel context.CancelFunc
		first, cancel = context.WithTimeoutCause(ctx, o.FirstRequest, fmt.Errorf("%w within %v", errNoRequest, o.FirstRequest))
		defer cancel()
	}
	for wait := first; ; wait = ctx {
		req, err := v.receive(wait)
		if err != nil {
			return made, v.ended(err)
		}
		made = made || req.Type == rpc.ReqRestore
		more, err := v.request(context.WithoutCancel(ctx), req)
		if err != nil || !more {
			return made, err
		}
	}
}

// receive waits for a request. One that can only be done by a peer on the client's own socket is left there for it.
func (v *conversation) receive(ctx context.Context) (*rpc.Req, error) {
	req, err := v.front.peek(ctx)
	if err != nil {
		return nil, err
	}
	if v.kin(req) && v.client.trust != untrusted && v.back == nil {
		if t, ok := v.Transport.(TakesOver); ok && v.client.checkRequest(req, *v.rules) == nil {
			v.Log("%v: %v is handed to the peer with the connection", v.client, req.Type)
			v.lasts()
			err := t.TakeOver(v.front.fd)
			v.front.drop()
			v.answer(req.Type, err)
			return nil, err
		}
	}
	return req, v.front.drop()
}

// kin reports whether a request can only be done by a process that stands where the client thinks its peer stands.
func (v *conversation) kin(req *rpc.Req) bool {
	o := req.Opts
	switch {
	case v.selfDump(req):
		return true
	case o == nil || req.Type != rpc.ReqRestore:
		return false
	}
	return isSet(o.RstSibling) || len(o.ExecCmd) > 0
}

// selfDump reports whether the client wants itself dumped.
func (v *conversation) selfDump(req *rpc.Req) bool {
	if req.Type != rpc.ReqDump || req.Opts == nil {
		return false
	}
	pid := req.Opts.PID
	return pid == nil || *pid == 0 || v.client.shares("pid") && int(*pid) == v.client.PID
}

// ended answers what can be answered when no request could be read, and says whether it was an error.
func (v *conversation) ended(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, errEnding):
		return nil
	case errors.Is(err, errTooLong):
		v.answer(rpc.ReqEmpty, refusal(syscall.EMSGSIZE, "%w", err))
	case errors.Is(err, errMalformed):
		v.answer(rpc.ReqEmpty, refusal(syscall.EBADMSG, "%w", err))
	case errors.Is(err, errNoRequest):
		v.answer(rpc.ReqEmpty, refusal(syscall.ETIMEDOUT, "%w", err))
	}
	return err
}

func (v *conversation) hangUp() {
	if v.back != nil {
		v.back.Close()
		v.back = nil
	}
}

// answer sends a response that the server makes itself.
func (v *conversation) answer(t rpc.ReqType, err error) error {
	return v.front.send(response(t, err), nil)
}

// response is how err is told to a client; cr_errmsg leads with the cause.
func response(t rpc.ReqType, err error) *rpc.Resp {
	if e, ok := errors.AsType[*criu.Error](err); ok && e.Op == "" {
		named := *e
		named.Op = t.String()
		err = &named
	}
	resp := criu.Response(t, err)
	if resp.CrErrno == nil {
		if errno := errnoOf(err); errno != 0 {
			resp.CrErrno = new(int32(errno))
		}
	}
	return completed(resp)
}

// completed fills in, in the answer that something has failed, what CRIU always does: there are clients that do not look whether it
// is there.
func completed(resp *rpc.Resp) *rpc.Resp {
	switch {
	case resp.Type == rpc.ReqPageServerChild:
		resp.Type = rpc.ReqPageServer
	case resp.Type == rpc.ReqDump && resp.Dump == nil:
		resp.Dump = &rpc.DumpResp{Restored: new(false)}
	case resp.Type == rpc.ReqRestore && resp.Restore == nil:
		resp.Restore = &rpc.RestoreResp{PID: -1}
	}
	return resp
}

// request sees a request through. It reports whether another may follow.
func (v *conversation) request(ctx context.Context, req *rpc.Req) (more bool, err error) {
	if v.rounds && req.Type != rpc.ReqPreDump && req.Type != rpc.ReqDump {
		return false, v.answer(rpc.ReqEmpty, refusal(syscall.EBADRQC, "after a round of pre-dump only PRE_DUMP or DUMP may follow, not %v", req.Type))
	}
	if !known(req.Type) {
		return false, v.answer(rpc.ReqEmpty, refusal(syscall.EINVAL, "%v is no request", req.Type))
	}
	j, err := v.prepare(req)
	if err != nil {
		v.Log("%v: %v: %v", v.client, req.Type, err)
		return false, v.answer(req.Type, err)
	}
	defer j.close()
	if v.big != nil && movesMemory(req.Type) {
		v.big()
	}
	if !v.quick(req.Type) {
		v.lasts()
	}
	if v.TellCaller && v.back != nil {
		v.hangUp() // an engine in this process remembers nothing from one request to the next, but who it is for
	}
	renumber := func(func(int) int) {}
	if v.client.trust == direct && req.Opts != nil {
		if j.call.Files, renumber, err = inherited(req.Opts); err != nil {
			return false, v.answer(req.Type, err)
		}
		defer closeAll(j.call.Files)
	}
	switch {
	case v.back == nil:
		if v.back, err = v.peer().Open(ctx, j.call); err != nil {
			v.back = nil
			v.Log("%v: %v: %v", v.client, req.Type, err)
			return false, v.answer(req.Type, err)
		}
	case len(j.call.Files) > 0:
		return false, v.answer(req.Type, refusal(syscall.EINVAL, "files can be handed over with the first request of a conversation only"))
	}
	renumber(v.back.FileNumber)
	success, err := v.exchange(ctx, req, j)
	if err != nil {
		return false, err
	}
	if v.rounds = j.asked == rpc.ReqPreDump; v.rounds {
		return success, nil // the next round, or the dump, comes on the same conversation, whether it was said or not
	}
	return isSet(req.KeepOpen), nil
}

// peer is the Transport for this client.
func (v *conversation) peer() criu.Transport {
	if p, ok := v.Transport.(*Proxy); ok && v.client.trust == untrusted && v.rules.confine && v.rules.become {
		return p.confined(v.client)
	}
	return v.Transport
}

// known reports whether a request is one that a peer can be asked. A NOTIFY is an answer and no request.
func known(t rpc.ReqType) bool {
	switch t {
	case rpc.ReqDump, rpc.ReqRestore, rpc.ReqCheck, rpc.ReqPreDump, rpc.ReqPageServer, rpc.ReqCPUInfoDump, rpc.ReqCPUInfoCheck,
		rpc.ReqFeatureCheck, rpc.ReqVersion, rpc.ReqWaitPID, rpc.ReqPageServerChild, rpc.ReqSinglePreDump:
		return true
	}
	return false
}

// prepare checks a request and rewrites it from the client's point of view to this process's.
func (v *conversation) prepare(req *rpc.Req) (*job, error) {
	j := &job{asked: req.Type, call: criu.Call{Op: req.Type}}
	if v.TellCaller {
		j.call.Caller = &v.client.Caller
		j.call.Caller.Parent = v.client.trust == direct
	}
	if req.Type == rpc.ReqFeatureCheck && req.Features == nil {
		req.Features = &rpc.Features{} // CRIU's child would crash
	}
	if err := v.client.checkRequest(req, *v.rules); err != nil {
		return nil, err
	}
	if req.Type == rpc.ReqPreDump {
		req.KeepOpen = nil // CRIU stays by itself, and reads a request that it has freed to see whether it was asked to
	}
	if req.Opts == nil {
		if needsOptions(req.Type) {
			return nil, refusal(syscall.EBADRQC, "%v needs options", req.Type)
		}
		return j, nil
	}
	if v.kin(req) {
		if err := v.prepareKin(req, j); err != nil {
			return nil, err
		}
	}
	switch req.Type {
	case rpc.ReqVersion, rpc.ReqFeatureCheck, rpc.ReqWaitPID:
		req.Opts = nil // nobody looks at them, and what they name need not be there
		return j, nil
	}
	if v.TellCaller {
		if err := v.configure(req.Opts); err != nil {
			return nil, err
		}
	}
	files, err := v.client.takeFiles(req.Opts, *v.rules)
	if err != nil && req.Type == rpc.ReqCheck && req.Opts.LogFile == nil {
		// A check that is to leave no log needs no directory, and clients then send any number.
		req.Opts.ImagesDirFD, req.Opts.ImagesDir, req.Opts.WorkDirFD, err = -1, nil, nil, nil
	}
	if err != nil {
		return nil, err
	}
	j.files = files
	if err := v.prepareTree(req, j); err != nil {
		j.close()
		return nil, err
	}
	return j, nil
}

// quick reports whether a request is answered in no time, by an engine in this process.
func (v *conversation) quick(t rpc.ReqType) bool {
	return v.TellCaller && (t == rpc.ReqVersion || t == rpc.ReqFeatureCheck)
}

// movesMemory reports whether a request is one that more than one processor is of use for.
func movesMemory(t rpc.ReqType) bool {
	switch t {
	case rpc.ReqDump, rpc.ReqRestore, rpc.ReqPreDump, rpc.ReqSinglePreDump:
		return true
	}
	return false
}

func needsOptions(t rpc.ReqType) bool {
	switch t {
	case rpc.ReqCheck, rpc.ReqFeatureCheck, rpc.ReqVersion, rpc.ReqWaitPID:
		return false
	}
	return true
}

// prepareKin has an engine in this process do what rests on who the client is. Other peers are refused it, unless the
// client names itself by its pid: to them it is a process like any other.
func (v *conversation) prepareKin(req *rpc.Req, j *job) error {
	switch {
	case !v.TellCaller && (v.client.trust == untrusted || req.Opts.PID == nil):
		return v.refuseKin(req)
	case !v.TellCaller:
		return nil
	case !v.selfDump(req):
		j.call.Sibling = isSet(req.Opts.RstSibling)
		j.call.ExecCmd = len(req.Opts.ExecCmd) > 0
		return nil
	case isSet(req.Opts.NotifyScripts):
		return refusal(syscall.EINVAL, "a process that dumps itself cannot answer notifications meanwhile: it is frozen")
	}
	own, err := v.front.inode()
	if err != nil {
		return err
	}
	// Where the kernel does not say which socket of the client's it is, the dump will meet one that it cannot save.
	peer, err := linux.UnixPeer(uint32(own))
	if err != nil {
		v.Log("%v: its end of the conversation: %v", v.client, err)
	}
	j.call.SelfDump, j.call.Caller.Socket = true, uint64(peer)
	j.killed = !isSet(req.Opts.LeaveRunning) && !isSet(req.Opts.LeaveStopped)
	req.Opts.PID = new(int32(v.client.PID))
	return nil
}

func isSet(option *bool) bool { return option != nil && *option }

func (v *conversation) refuseKin(req *rpc.Req) error {
	if v.selfDump(req) {
		if v.client.trust == untrusted {
			return refusal(syscall.EPERM, "a client that is not root cannot have itself dumped by the service (%s); start a peer of its own, or name the pid of another process", v.client.why)
		}
		return refusal(syscall.EOPNOTSUPP, "this peer cannot dump the process that asks it")
	}
	return refusal(syscall.EOPNOTSUPP, "rst_sibling and exec_cmd cannot be had through this peer, which is not the client's child")
}

// prepareTree checks what a dump is about, or what a restore would be under.
func (v *conversation) prepareTree(req *rpc.Req, j *job) error {
	o := req.Opts
	switch req.Type {
	case rpc.ReqRestore:
		if v.client.trust == untrusted && v.rules.confine {
			if err := v.client.checkConfinement(); err != nil {
				return err
			}
			if v.TellCaller && v.rules.become {
				// What is restored is made by this process, and gets no higher limits than it has.
				if err := v.client.confine(os.Getpid()); err != nil {
					return err
				}
			}
		}
		v.fillUnprivileged(o)
		return nil
	case rpc.ReqDump, rpc.ReqPreDump, rpc.ReqSinglePreDump:
	default:
		v.fillUnprivileged(o)
		return nil
	}
	if o.PID == nil || *o.PID == 0 {
		// Without a pid the peer would take its own client's, which is this process's.
		return refusal(syscall.EBADRQC, "%v needs a pid", req.Type)
	}
	var t *tree
	var err error
	if j.call.SelfDump {
		if t, err = holdProcess(v.client.PID); err == nil {
			if err = v.client.alive(); err != nil {
				t.close() // somebody else's pid by now
			}
		}
	} else {
		t, err = v.client.holdTree(*o.PID, *v.rules)
	}
	if err != nil {
		return err
	}
	o.PID = new(int32(t.pid))
	if v.client.trust != untrusted {
		t.close()
		return nil
	}
	j.tree = t
	v.fillUnprivileged(o)
	if v.rules.ownTree {
		if err := v.client.owns(t); err != nil {
			return err
		}
	}
	if v.rules.afterFreeze && !isSet(o.NotifyScripts) {
		j.quiet = true
		o.NotifyScripts = new(true) // that tells when the tree is frozen
	}
	return nil
}

// fillUnprivileged tells a peer that is not root's, which it wants to hear from its client.
func (v *conversation) fillUnprivileged(o *rpc.Opts) {
	if v.client.trust == untrusted && os.Geteuid() != 0 && o.Unprivileged == nil && !v.TellCaller {
		o.Unprivileged = new(true)
	}
}

func (j *job) close() {
	closeAll(j.files)
	j.files = nil
	j.tree.close()
	j.tree = nil
}

// exchange sends the request to the peer and passes on what comes, up to the response.
func (v *conversation) exchange(ctx context.Context, req *rpc.Req, j *job) (success bool, err error) {
	var msg *criu.Message
	ask := func(ctx context.Context) error {
		err := v.back.Send(ctx, req)
		if err == nil {
			msg, err = v.back.Recv(ctx)
		}
		return err
	}
	for {
		if err := v.whileThere(ctx, req.Type, ask); err != nil {
			return false, v.lost(j, err)
		}
		if msg.Resp.Type != rpc.ReqNotify {
			return v.conclude(j, msg)
		}
		req, err = v.notify(ctx, j, msg)
		if err != nil {
			// The client is gone, or talks nonsense: the peer is told to stop, and undoes what it did.
			j.broken = err
			req = &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(false)}
		}
	}
}

// whileThere does something that may wait for the peer, but not for ever once the client is gone.
func (v *conversation) whileThere(ctx context.Context, t rpc.ReqType, do func(context.Context) error) error {
	if v.quick(t) {
		return do(ctx)
	}
	there, stop := v.front.whileThere(ctx, v.HangUpGrace)
	err := do(there)
	stop()
	if err != nil && errors.Is(context.Cause(there), errClientGone) {
		v.back.Abort()
	}
	return err
}

// lost reports a peer that broke off. The reason that the server had to stop it, if it had one, is the cause.
func (v *conversation) lost(j *job, err error) error {
	if j.broken != nil {
		err = errors.Join(j.broken, err)
	}
	v.Log("%v: %v: %v", v.client, j.asked, err)
	v.hangUp()
	if sendErr := v.answer(j.asked, err); sendErr != nil && j.broken == nil {
		return sendErr
	}
	return err
}

// conclude passes the response on.
func (v *conversation) conclude(j *job, msg *criu.Message) (bool, error) {
	defer closeAll(msg.Files)
	resp := msg.Resp
	if !resp.Success {
		if cause := errors.Join(j.broken, msg.Detail); cause != nil {
			told := response(resp.Type, cause)
			if told.CrErrno != nil && (resp.CrErrno == nil || j.broken != nil) {
				resp.CrErrno = told.CrErrno
			}
			resp.CrErrmsg = told.CrErrmsg
		}
		completed(resp)
	}
	if j.call.SelfDump && resp.Success && j.killed {
		return false, nil // there is nobody to answer; the answer to a restored client is in its images
	}
	return resp.Success, v.front.send(resp, msg.Files)
}

// notify passes a notification on and returns the client's answer.
func (v *conversation) notify(ctx context.Context, j *job, msg *criu.Message) (*rpc.Req, error) {
	defer closeAll(msg.Files)
	if j.broken != nil {
		return &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(false)}, nil
	}
	if j.tree != nil && v.rules.afterFreeze && frozenAt(msg.Resp.Notify) {
		if err := v.client.owns(j.tree); err != nil {
			v.Log("%v: after the freeze: %v", v.client, err)
			return nil, err
		}
	}
	if j.quiet {
		return &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true)}, nil
	}
	if err := v.front.send(msg.Resp, msg.Files); err != nil {
		return nil, fmt.Errorf("the client did not take a notification: %w", err)
	}
	reply, err := v.front.next(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the client did not answer a notification: %w", err)
	case reply.Type != rpc.ReqNotify:
		return nil, refusal(syscall.EBADRQC, "the client answered a notification with %v", reply.Type)
	}
	if reply.Opts != nil {
		// External files may be named here (query-ext-files): options like any other.
		if err := v.client.checkRequest(reply, *v.rules); err != nil {
			return nil, err
		}
		reply.Opts = &rpc.Opts{ImagesDirFD: -1, External: reply.Opts.External}
	}
	return reply, nil
}

// frozenAt reports whether the tree is frozen when a notification comes.
func frozenAt(n *rpc.Notify) bool {
	if n == nil || n.Script == nil {
		return false
	}
	switch *n.Script {
	case "network-lock", "query-ext-files", "post-dump":
		return true
	}
	return false
}
