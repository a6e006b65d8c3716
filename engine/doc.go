// Package engine is the built-in engine: it freezes trees of processes to CRIU's images and brings them back by
// itself, with nothing installed.
//
// An [Engine] is a [stasis.example/criu.Transport]: whoever can talk to CRIU can talk to it, in the same process and with the
// same requests.
//
//	client := criu.New(engine.New())
//	_, err := client.Dump(ctx, criu.DumpOptions{PID: pid, …})
//
// Requests that it cannot do (pre-dumps, page servers) and options that it cannot honour it refuses by name, before it does
// anything. A restored root is a child of this process, even of one that did not ask for that: with [criu.Client.Restore] it is
// init's only when this process has ended, and until then this process has to wait for it.
//
// It does not change what it cannot save: a tree that has anything of that kind is refused, all of it in one message, and
// goes on running.
//
// In process it must not be used by programs that wait for any child (wait4 with -1): they would take what the engine waits
// for. A tree that the calling process is part of is refused.
package engine
