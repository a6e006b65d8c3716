// Package criu checkpoints and restores Linux processes through anything that answers CRIU's RPC: a CRIU service
// socket, a `criu swrk` child process, a connection that is already there, or an engine in this process.
//
//	client := criu.New(&criu.Swrk{})
//	_, err := client.Dump(ctx, criu.DumpOptions{PID: 42, ImagesDir: "/var/lib/ckpt/42"})
//
// # Peers
//
// A [Transport] opens conversations with a peer. [Swrk] starts a CRIU of the caller's own for each conversation and is
// the right choice for a container runtime: descriptors can be handed over, the restored tree can become the caller's
// child, and everything happens with the caller's rights. [Service] speaks to `criu service` on a unix socket, [FD] to
// a connected socket. A [Client] is safe for concurrent use; each call is a conversation of its own.
//
// # Options
//
// Each operation has its own options struct; the zero value of each field is the peer's default. The structs are
// generated from the same table as the wire codec, so that they cover every option of CRIU's RPC. Options are checked
// before anything is sent, and all complaints come back at once. A Client never changes the options it is given.
//
// # Errors
//
// Every failure is an [*Error]. It says which operation failed at which stage, with the last error lines of the peer's
// own log, and it matches, with [errors.Is], both a sentinel such as [ErrFailed] or [ErrNoProcess] and the errno that
// CRIU reported.
//
// # Cancellation
//
// Every blocking call takes a context. When it is cancelled the client refuses the next notification, which lets the
// peer undo what it did; a peer that has not answered when the grace period ends (see [WithGrace]) is killed where it
// is the caller's child, together with what a half-done restore has made. A service cannot be killed by a client: its
// connection is closed. An operation that the peer completed all the same is reported as the success it is.
package criu
