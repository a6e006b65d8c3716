package criu_test

import (
	"bytes"
	"reflect"
	"testing"

	criurpc "github.com/checkpoint-restore/go-criu/v8/rpc"

	"stasis.example/criu/criutest"
	"stasis.example/criu/rpc"
)

// stable checks that what was decoded is encoded and decoded to the same again, unknown fields included.
func stable(t *testing.T, packet []byte, fresh func() wireMessage) {
	m := fresh()
	if m.Decode(packet) != nil {
		return
	}
	first := m.Append(nil)
	again := fresh()
	if err := again.Decode(first); err != nil {
		t.Fatalf("%x was decoded, its encoding %x is not: %v", packet, first, err)
	}
	if second := again.Append(nil); !bytes.Equal(first, second) {
		t.Fatalf("%x is encoded as %x, and that as %x", packet, first, second)
	}
}

func FuzzResponse(f *testing.F) {
	for _, req := range []rpc.ReqType{rpc.ReqDump, rpc.ReqRestore, rpc.ReqVersion, rpc.ReqFeatureCheck, rpc.ReqPageServer, rpc.ReqWaitPID, 99} {
		f.Add(criutest.Reply(&rpc.Req{Type: req}).Append(nil))
	}
	f.Add((&rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: &rpc.Notify{Script: new("post-dump"), PID: new(int32(-7))}}).Append(nil))
	f.Fuzz(func(t *testing.T, packet []byte) {
		stable(t, packet, func() wireMessage { return new(rpc.Resp) })
	})
}

func FuzzRequest(f *testing.F) {
	packet, err := filled(reflect.TypeFor[criurpc.CriuReq]()).Interface().(theirMessage).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packet)
	f.Add((&rpc.Req{Type: rpc.ReqCheck, Opts: &rpc.Opts{ImagesDirFD: -1}}).Append(nil))
	f.Fuzz(func(t *testing.T, packet []byte) {
		stable(t, packet, func() wireMessage { return new(rpc.Req) })
	})
}
