// Package linux is the project's only door to raw system calls and ioctls: those that x/sys/unix has no plain function
// for. Everything else is called through x/sys/unix directly.
//
// What the engine does to other processes goes through a [Kernel]. It has a hook that is asked before each such call, may
// count it, fail it or never return, and so lets a test stop the engine at its first step, its second, and so on until
// there is none left.
package linux
