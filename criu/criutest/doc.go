// Package criutest helps to test programs that speak CRIU RPC, on either side of a [criu.Transport].
//
// # A scripted peer
//
// A [Peer] stands in for CRIU. It follows a [Script]: what to receive, what to answer, and how to misbehave. It can be
// reached in every way that CRIU can: as a service socket, as a connected descriptor, in process, and as a real child
// process.
//
//	peer := criutest.NewPeer(t, criutest.Script{criutest.Receive(), criutest.Fail(syscall.ESRCH, "no such task")})
//	err := criu.New(peer.Service()).Check(ctx, criu.CheckOptions{})
//	… peer.Requests() is what was asked …
//
// The child process of [Peer.Swrk] is the test program itself, started once more. For that its TestMain has to begin
// with [ServeSwrk]:
//
//	func TestMain(m *testing.M) {
//		criutest.ServeSwrk()
//		os.Exit(m.Run())
//	}
//
// # Conformance
//
// [Run] is the suite that everything has to pass which performs CRIU's operations: package criu's client over each of
// its transports, and what others put behind or in front of that seam. A scripted peer shows how failures are told; a
// real one shows that processes are dumped and restored.
package criutest
