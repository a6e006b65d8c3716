// Package engine is the built-in engine: it freezes trees of processes to CRIU's images by itself, with nothing installed.
//
// An [Engine] is a [stasis.example/criu.Transport]: whoever can talk to CRIU can talk to it, in the same process and with the
// same requests.
//
//	client := criu.New(engine.New())
//	_, err := client.Dump(ctx, criu.DumpOptions{PID: pid, …})
//
// It dumps; what it cannot do yet, a restore above all, it refuses by name.
//
// It does not change what it cannot save: a tree that has anything of that kind is refused, all of it in one message, and
// goes on running.
//
// In process it must not be used by programs that wait for any child (wait4 with -1): they would take what the engine waits
// for. A tree that the calling process is part of is refused.
package engine
