package server

import (
	"context"
	"os"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
)

// recorder is a Transport that notes requests and says yes.
type recorder struct{ seen []*rpc.Req }

func (r *recorder) Open(context.Context, criu.Call) (criu.Conn, error) { return &recorded{r: r}, nil }
func (r *recorder) String() string                                     { return "recorder" }

type recorded struct {
	r    *recorder
	last *rpc.Req
}

func (c *recorded) Send(_ context.Context, req *rpc.Req) error {
	copied := new(rpc.Req)
	if err := copied.Decode(req.Append(nil)); err != nil {
		return err
	}
	c.last = copied
	c.r.seen = append(c.r.seen, copied)
	return nil
}

func (c *recorded) Recv(context.Context) (*criu.Message, error) {
	return &criu.Message{Resp: criutest.Reply(c.last)}, nil
}
func (*recorded) FileNumber(i int) int { return 100 + i }
func (*recorded) Abort() bool          { return false }
func (*recorded) Close() error         { return nil }

// FuzzRequest sends a client's bytes through a whole conversation. Whatever they are, nothing crashes or hangs, every
// request is answered, and no peer sees an option from a client that may not set it.
func FuzzRequest(f *testing.F) {
	for _, req := range []*rpc.Req{
		{Type: rpc.ReqVersion, KeepOpen: new(true)},
		{Type: rpc.ReqFeatureCheck},
		{Type: rpc.ReqNotify, NotifySuccess: new(true)},
		{Type: rpc.ReqDump, Opts: &rpc.Opts{ImagesDirFD: 0, PID: new(int32(1)), LogFile: new("x"), NotifyScripts: new(true)}},
		{Type: rpc.ReqRestore, Opts: &rpc.Opts{ImagesDirFD: -1, ExecCmd: []string{"sh"}, RstSibling: new(false), NetworkLock: new(rpc.NetworkLockIptables)}},
		{Type: rpc.ReqCheck, Opts: &rpc.Opts{ImagesDirFD: -1, InheritFD: []*rpc.InheritFD{{Key: "a", FD: 1}}, PS: &rpc.PageServerInfo{FD: new(int32(3))}}},
		{Type: rpc.ReqPageServerChild, Opts: &rpc.Opts{ImagesDirFD: -1}},
	} {
		f.Add(req.Append(nil), false)
		f.Add(req.Append(nil), true)
	}
	f.Add([]byte{}, false)
	f.Add([]byte{8, 3, 8, 3, 0xff}, false)
	f.Fuzz(func(t *testing.T, data []byte, privileged bool) {
		if len(data) == 0 || len(data) > 1<<16 {
			return
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		front := newPackets(pair[1])
		defer front.close()
		pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{Caller: criu.Caller{PID: os.Getpid(), UID: mallory, GID: mallory, PIDFD: os.NewFile(uintptr(pidfd), "self")}}
		defer c.close()
		if privileged {
			c.trust = trusted
		}
		if err := unix.Send(pair[0], data, 0); err != nil {
			t.Fatal(err)
		}
		// The end of what the client has to say.
		if err := unix.Shutdown(pair[0], unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		behind := &recorder{}
		o := Options{Transport: behind}
		o.setDefaults()
		converse(ctx, front, c, o)
		if ctx.Err() != nil {
			t.Fatal("the conversation hangs")
		}
		buf := make([]byte, 1<<16)
		if n, _, err := unix.Recvfrom(pair[0], buf, unix.MSG_DONTWAIT); err != nil || n == 0 {
			t.Fatalf("no answer: %v", err)
		} else if err := new(rpc.Resp).Decode(buf[:n]); err != nil {
			t.Fatal(err)
		}
		for _, req := range behind.seen {
			checkSeen(t, req, privileged)
		}
	})
}

// checkSeen checks a request that has reached the peer.
func checkSeen(t *testing.T, req *rpc.Req, privileged bool) {
	t.Helper()
	if req.Opts == nil {
		return
	}
	if o := req.Opts; o.PID == nil && req.Type == rpc.ReqDump {
		t.Error("a dump without a pid, which would be this process, reached the peer")
	}
	fields := reflect.ValueOf(req.Opts).Elem()
	for i, row := range rpctable.Options() {
		if fields.Field(i).IsZero() || row.Who == rpctable.Anyone || privileged && row.Who == rpctable.Root {
			continue
		}
		t.Errorf("%s, which may be set by %d only, reached the peer", row.Name, row.Who)
	}
	if !privileged && len(req.Opts.Unknown) > 0 {
		t.Error("unknown options reached the peer")
	}
}
