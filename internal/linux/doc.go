// Package linux is the project's only door to raw system calls and ioctls: those that golang.org/x/sys/unix has no plain
// function for. Every call by which the engine changes another process goes through a [Kernel].
//
// The door has one hook. It is asked before each such call, may count it, fail it or never return, and so lets a test
// stop the engine at its first step, its second, and so on until there is none left.
package linux
