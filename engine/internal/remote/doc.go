// Package remote makes the threads of another process execute system calls, and sees to it that the process comes back
// by itself when we die in the middle. README.md, beside this file, is the argument that it does: it says what state a
// thread is in at each instant.
//
//	p, err := remote.Freeze(tracer, pid) // all threads stopped, nothing changed yet
//	err = p.Enter()                      // the block and the park socket in place
//	err = p.Run(calls)                   // a table of system calls, one round trip
//	err = p.Release()                    // everything as it was, the process runs
//
// Whatever happens between Freeze and Release, Release is the way out. All methods belong on the tracer's goroutine.
package remote

//go:generate go run ./genblock asm/block_amd64.S block_amd64.go
