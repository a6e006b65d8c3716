package criutest

import (
	"fmt"

	"stasis.example/criu/rpc"
)

// What a peer that behaves says of itself.
const (
	VersionMajor    = 4
	VersionMinor    = 2
	VersionSublevel = 1
	RestoredPID     = 4711 // of a restore, which makes no process
	PageServerPID   = 4712
	PageServerPort  = 4713
	PageServerEnd   = 0x0300 // wait status: exited with 3
)

// Serve behaves like CRIU until the conversation is over: it notifies where it was asked to, keeps the conversation open
// for the requests for which CRIU honours that, answers what it does not know with EMPTY, and leaves after a failure. It
// touches no process and writes nothing.
func (c *Conn) Serve() error {
	for {
		req, err := c.Recv()
		if err != nil {
			return err
		}
		agreed, err := c.stages(req)
		if err != nil {
			return err
		}
		resp := Reply(req)
		if !agreed {
			resp = &rpc.Resp{Type: req.Type}
		}
		if err := c.Send(resp); err != nil {
			return err
		}
		if !resp.Success || !staysOpen(req) {
			return errExit
		}
	}
}

// staysOpen reports whether CRIU waits for another request after this one.
func staysOpen(req *rpc.Req) bool {
	keep := req.KeepOpen != nil && *req.KeepOpen
	switch req.Type {
	case rpc.ReqPreDump:
		return true
	case rpc.ReqPageServer, rpc.ReqPageServerChild, rpc.ReqCPUInfoDump, rpc.ReqCPUInfoCheck, rpc.ReqFeatureCheck,
		rpc.ReqVersion, rpc.ReqWaitPID:
		return keep
	}
	return false
}

// Reply is the answer of a peer that behaves to a request.
func Reply(req *rpc.Req) *rpc.Resp {
	resp := &rpc.Resp{Type: req.Type, Success: true}
	switch req.Type {
	case rpc.ReqCheck, rpc.ReqPreDump, rpc.ReqSinglePreDump, rpc.ReqCPUInfoDump, rpc.ReqCPUInfoCheck:
	case rpc.ReqDump:
		resp.Dump = &rpc.DumpResp{Restored: new(false)}
	case rpc.ReqRestore:
		resp.Restore = &rpc.RestoreResp{PID: RestoredPID}
	case rpc.ReqPageServer, rpc.ReqPageServerChild:
		resp.Type = rpc.ReqPageServer
		resp.PS = &rpc.PageServerInfo{PID: new(int32(PageServerPID)), Port: new(int32(PageServerPort))}
	case rpc.ReqWaitPID:
		resp.Status = new(int32(PageServerEnd))
	case rpc.ReqFeatureCheck:
		// Not what was asked: a client that takes its own question for the answer is found out.
		resp.Features = &rpc.Features{MemTrack: new(false), LazyPages: new(true), PidfdStore: new(true)}
	case rpc.ReqVersion:
		resp.Version = &rpc.Version{MajorNumber: VersionMajor, MinorNumber: VersionMinor, Sublevel: new(int32(VersionSublevel))}
	default:
		resp.Type, resp.Success = rpc.ReqEmpty, false
	}
	return resp
}

// stages sends the notifications of a request, and reports whether the client agreed to all.
func (c *Conn) stages(req *rpc.Req) (bool, error) {
	if req.Opts == nil || req.Opts.NotifyScripts == nil || !*req.Opts.NotifyScripts {
		return true, nil
	}
	for _, s := range Stages(req.Type) {
		pid := 0
		if s == "setup-namespaces" || s == "post-restore" || s == "pre-resume" {
			pid = RestoredPID
		}
		agreed, err := c.Notify(s, pid)
		if err != nil {
			return false, fmt.Errorf("stage %s: %w", s, err)
		}
		if !agreed {
			return false, nil
		}
	}
	return true, nil
}

// Stages are the notifications that Serve sends in the course of a request, a choice of CRIU's.
func Stages(t rpc.ReqType) []string {
	switch t {
	case rpc.ReqDump:
		return []string{"pre-dump", "network-lock", "network-unlock", "post-dump"}
	case rpc.ReqRestore:
		return []string{"pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore", "network-unlock", "pre-resume", "post-resume"}
	}
	return nil
}
