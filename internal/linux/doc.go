// Package linux is the project's only door to raw system calls and ioctls: those that x/sys/unix has no plain function
// for. Everything else is called through x/sys/unix directly.
package linux
