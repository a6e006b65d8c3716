//go:build !amd64

package criu

// detachCode has not been written for this architecture: a self-dump through a swrk child is refused.
var detachCode []byte

const elfMachine = 0
