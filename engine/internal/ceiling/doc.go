// Package ceiling keeps a restore that is made on behalf of somebody else from giving them more than they have.
//
// Images are what a client hands in, and say who the restored processes are: their ids, capabilities, limits and so on. Whoever
// makes the processes may have more rights than the client, or may be free of what the client is confined by. [Read] looks at
// what the client has, and [Check], which is pure, holds a tree against it before there is a process. What a client can get by
// itself, by a capability that it has, it may get here.
//
// The kernel does not show everything: of another process's secure bits it says nothing, and two seccomp filters cannot be
// compared. There the rules are on the safe side.
package ceiling
