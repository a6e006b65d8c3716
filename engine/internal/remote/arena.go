//go:build amd64

package remote

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// An Arena collects arguments in the process's room for them, and calls that use them.
type Arena struct {
	p     *Process
	bytes []byte
	calls []Call
}

// NewArena starts an empty one. The room is one for all: what an arena has is written by Run.
func (p *Process) NewArena() *Arena { return &Arena{p: p} }

// Put adds bytes, aligned to eight, and returns where they will be.
func (a *Arena) Put(b []byte) uint64 {
	for len(a.bytes)%8 != 0 {
		a.bytes = append(a.bytes, 0)
	}
	at, _ := a.p.Data()
	at += uint64(len(a.bytes))
	a.bytes = append(a.bytes, b...)
	return at
}

// Words adds 64-bit words.
func (a *Arena) Words(words ...uint64) uint64 {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return a.Put(b)
}

// Text adds a string with its zero byte.
func (a *Arena) Text(s string) uint64 { return a.Put(append([]byte(s), 0)) }

// Call adds a call.
func (a *Arena) Call(nr uint32, args ...uint64) { a.calls = append(a.calls, NewCall(nr, args...)) }

// Run writes the arguments and lets a thread make the calls, all of which must succeed.
func (a *Arena) Run(th *Thread) error {
	at, room := a.p.Data()
	if uint64(len(a.bytes)) > room {
		return fmt.Errorf("%d bytes of arguments: %w", len(a.bytes), unix.E2BIG)
	}
	if len(a.bytes) > 0 {
		if err := a.p.Write(at, a.bytes); err != nil {
			return err
		}
	}
	return errors.Join(th.Run(a.calls), Must(a.calls))
}
