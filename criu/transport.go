package criu

import (
	"context"
	"os"

	"stasis.example/criu/rpc"
)

// Transport opens conversations with a peer that answers CRIU RPC. Implementations are safe for concurrent use.
//
// One whose peer finds out by itself that pages are missing from images can say so by a method ChecksPages() bool: of
// others the client looks before it asks for a restore.
type Transport interface {
	// Open starts a conversation. Failing to reach the peer is an error that matches [ErrConnect]. The context bounds
	// Open alone, not the conversation.
	Open(ctx context.Context, call Call) (Conn, error)

	// String names the peer for messages: "criu swrk (/usr/sbin/criu)", "service /run/criu.sock".
	String() string
}

// Call is what a Transport is told of a conversation before it starts.
type Call struct {
	// Op is the first request of the conversation.
	Op rpc.ReqType

	// SelfDump says that the calling process itself is to be dumped: the peer must be outside the process tree below
	// the caller, and must leave nothing in the caller that an image could not hold.
	SelfDump bool

	// Sibling says that the restored root task must become a child of the calling process.
	Sibling bool

	// TreePIDs are the pids of the tree that is to be restored, in the peer's pid namespace, where the images tell them:
	// by them a Transport can find what a peer that dies in the course of a restore leaves.
	TreePIDs []int

	// Files are descriptors for the peer; Conn.FileNumber tells what number each has there. A Transport that cannot
	// pass descriptors refuses a Call that has any.
	Files []*os.File

	// ExecCmd says that the peer turns into another program after it has answered, so that closing the conversation
	// must not wait for it, much less kill it.
	ExecCmd bool

	// Caller is on whose behalf the conversation is held; nil is the calling process. Servers set it. A Transport
	// that cannot act for anybody else refuses a Call that has one.
	Caller *Caller
}

// Caller identifies the process that a server acts for.
type Caller struct {
	PID    int // in the pid namespace of this process
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups
	PIDFD  *os.File // holds the process, so that its pid cannot be reused unnoticed
	// Parent says that the caller has started this process for itself: what this process may do, the caller may.
	Parent bool
	// Socket is the inode of the socket that the caller holds the conversation on, 0 where it is not known. A caller that
	// dumps itself has it, and finds the answer there when it is restored.
	Socket uint64
}

// Conn is one conversation. Its methods may be called from one goroutine at a time, but for Abort and Close.
type Conn interface {
	// Send sends a request, or the answer to a notification.
	Send(ctx context.Context, req *rpc.Req) error

	// Recv waits for the next message. A peer that has gone is an error that matches [ErrTransport] and says how it
	// went, where that can be known. A context that ends leaves the conversation as it was.
	Recv(ctx context.Context) (*Message, error)

	// FileNumber is the number that Call.Files[i] has in the peer.
	FileNumber(i int) int

	// Abort ends the peer's work by force, as far as the transport can: what a restore has made so far is killed
	// first, then the peer. It reports whether it did: a Transport that has no hold on its peer does nothing.
	Abort() bool

	// Close ends the conversation and waits, in bounds, for a peer that is the caller's child. Close may be called
	// more than once.
	Close() error
}

// Message is what a peer sends: a response or a notification.
type Message struct {
	Resp *rpc.Resp
	// Files are the descriptors that came along; they belong to the receiver.
	Files []*os.File
	// Detail is what a peer in the same process says of a failure beyond Resp.
	Detail error
}

func (m *Message) closeFiles() {
	for _, f := range m.Files {
		f.Close()
	}
	m.Files = nil
}
