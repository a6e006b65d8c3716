// Package server answers CRIU's RPC on a socket or an inherited descriptor, from any [stasis.example/criu.Transport].
//
// In front of a swrk transport it is a proxy to a real CRIU, in front of an engine it is a CRIU service of its own.
//
//	process       what it does                                            files
//	the service   listens, accepts, says who the client is, starts one     listen.go, service.go, launch.go
//	              worker process for each connection; reads no request
//	a worker      holds the one conversation that it was started for,      worker.go, converse.go, packets.go
//	              with no more rights than its client has
//	… of root's   accepts the next one by itself, if it is root's          idle.go, waiter.go
//	swrk          the same conversation, on behalf of the parent process
//
// # Who may ask
//
// The service knows its client by what the kernel says of the socket's other end (caller.go): the uid, gid and groups
// that it had when it connected, and a pidfd, so that a pid that was given to another process since is noticed. There
// are two kinds of client. A trusted one could do by itself whatever it may ask for: uid 0 in the service's own user,
// pid and mount namespaces with CAP_SYS_ADMIN, or, for a service that is not root's, a process of the same user. For
// every other client the worker becomes the client before it runs its first instruction (launch.go), so that it is the
// kernel that judges each open and each ptrace. The other rules come on top: options that would have a privileged peer
// act on something that is not the client's are refused (policy.go), descriptors are taken from the client by
// pidfd_getfd (fds.go), the tree to be dumped has to be the client's own, before and after it was frozen (tree.go), and
// what is restored keeps the limits that the client is under (confine.go).
package server
