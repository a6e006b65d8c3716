// Package rpcsock is the state "socket of the conversation": the unix socket on which a process has asked for its own dump. In
// images it is an entry of type UNIXSK in files.img with the flag that CRIU gives it there: one that is connected to nobody.
//
// When the process is restored it waits for the answer to its request, or will. It finds it on the socket: the dump was a
// success, and you have been restored; and behind it the end of the conversation.
//
// Other unix sockets are not of this kind.
//
//   - Collect: the number of the socket's inode is known from whoever serves the conversation, who asks the kernel for the peer
//     of its own socket (sock_diag(7)). Options are read from a duplicate.
//   - Open: one end of a pair. The answer is put into it by the other end, which is closed then.
package rpcsock

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// What images say of a unix socket.
const (
	service   = 2 // uflags: the conversation's; CRIU's USK_SERVICE
	unconn    = 7 // state: TCP_CLOSE
	firstType = 1 // SOCK_STREAM
	lastType  = 5 // SOCK_SEQPACKET
)

// Is reports whether a file of type UNIXSK is of this kind.
func Is(e *entry.File) bool { return e.Usk != nil && e.Usk.Uflags&service != 0 }

// Encode writes the files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for e, f := range to.FilesOf(from, entry.FDTypeUnixSk) {
		o := f.Object.(*snapshot.RPCSocket)
		e.Usk = &entry.UnixSk{
			ID: e.ID, Ino: o.Inode, Type: o.Type, State: unconn, Flags: f.Flags, Uflags: service, Fown: images.Fown(f), Name: []byte{},
			Opts: entry.SkOpts{
				SoSndbuf: o.SendBuffer, SoRcvbuf: o.ReceiveBuffer,
				SoSndTmoSec: uint64(o.SendTimeout.Sec), SoSndTmoUsec: uint64(o.SendTimeout.Nsec) / 1000,
				SoRcvTmoSec: uint64(o.ReceiveTimeout.Sec), SoRcvTmoUsec: uint64(o.ReceiveTimeout.Nsec) / 1000,
				Reuseaddr: new(false), SoPriority: new(o.Priority), SoRcvlowat: new(o.ReceiveLow), SoPasscred: new(o.PassCred), SoPasssec: new(o.PassSec),
				SoDontroute: new(false), SoNoCheck: new(false), SoReuseport: new(false), SoBroadcast: new(false), SoKeepalive: new(false),
				SoOobinline: new(uint32(0)), SoBufLock: new(uint32(0)),
			},
		}
		if o.NetNS != 0 {
			e.Usk.NSID = new(o.NetNS)
		}
	}
}

// Decode reads the files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for e, f := range from.FilesOf(to, entry.FDTypeUnixSk) {
		if !images.Filled(e, e.Usk, func(m *entry.UnixSk) uint32 { return m.ID }, r) || !Is(e) {
			continue
		}
		where, u := images.FileName(e.ID), e.Usk
		r.Unknown(where, u, u.Unknown)
		r.Unknown(where, &u.Opts, u.Opts.Unknown)
		images.DecodeFile(e, f, u.Flags, &u.Fown, r)
		if u.Uflags != service || u.Peer != 0 || u.State != unconn || u.Type < firstType || u.Type > lastType || len(u.Name) > 0 {
			r.Damaged(where, "the socket of a conversation with type %d, state %d, flags %#x and peer %d", u.Type, u.State, u.Uflags, u.Peer)
		}
		o := &u.Opts
		const second, most = 1e6, 1 << 62
		if o.SoSndTmoUsec >= second || o.SoRcvTmoUsec >= second || o.SoSndTmoSec > most || o.SoRcvTmoSec > most {
			r.Damaged(where, "a timeout of %d.%06d or %d.%06d seconds", o.SoSndTmoSec, o.SoSndTmoUsec, o.SoRcvTmoSec, o.SoRcvTmoUsec)
		}
		f.Object = &snapshot.RPCSocket{
			Inode: u.Ino, Type: u.Type, SendBuffer: o.SoSndbuf, ReceiveBuffer: o.SoRcvbuf, Priority: value(o.SoPriority), ReceiveLow: value(o.SoRcvlowat),
			SendTimeout:    snapshot.Timespec{Sec: int64(o.SoSndTmoSec), Nsec: int64(o.SoSndTmoUsec) * 1000},
			ReceiveTimeout: snapshot.Timespec{Sec: int64(o.SoRcvTmoSec), Nsec: int64(o.SoRcvTmoUsec) * 1000},
			PassCred:       value(o.SoPasscred), PassSec: value(o.SoPasssec), NetNS: value(u.NSID),
		}
	}
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
