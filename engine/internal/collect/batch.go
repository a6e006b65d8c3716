//go:build amd64

package collect

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
)

// A Batch gathers system calls for a thread to make, and what is to be done with their results. It is used again for the next
// thread.
type Batch struct {
	calls []remote.Call
	addr  uint64 // where in the process calls can write to
	size  uint64 // how much of that was set aside
	then  []func(*Results) error
	data  []byte
}

// Room sets aside memory that calls can write to, aligned for anything, and returns its address.
func (b *Batch) Room(size uint64) uint64 {
	at := b.addr + b.size
	b.size += (size + 7) &^ 7
	return at
}

// A CallID names a call of a Batch.
type CallID int

// Call adds a call.
func (b *Batch) Call(nr uint32, args ...uint64) CallID {
	b.calls = append(b.calls, remote.NewCall(nr, args...))
	return CallID(len(b.calls) - 1)
}

// Then adds a function that is called when all calls were made.
func (b *Batch) Then(f func(*Results) error) { b.then = append(b.then, f) }

// Results are what the calls of a Batch returned.
type Results struct{ batch *Batch }

// Value returns what a call returned, and its errno as an error.
func (r *Results) Value(c CallID) (uint64, error) {
	call := &r.batch.calls[c]
	return call.Ret, call.Err()
}

// Data returns what is in room that was set aside.
func (r *Results) Data(room, size uint64) []byte { return r.batch.data[room-r.batch.addr:][:size] }

// Ask has the first thread of the process asked, when it has been entered: by calls that f adds. A tree of many processes need not
// keep the calls of all of them.
func (p *Process) Ask(f func(*Batch)) { p.asks = append(p.asks, f) }

// Ask is the same for the thread. The first of a process is asked in one go with the process.
func (th *Thread) Ask(f func(*Batch)) { th.asks = append(th.asks, f) }

// RunInside makes the calls by which the kinds ask a process, which was entered, and lets them see the results.
func (p *Process) RunInside(b *Batch) error {
	asks := p.asks
	addr, size := p.Remote.Data()
	for i, th := range p.Threads {
		asks = append(asks, th.asks...)
		if i > 0 {
			addr, size = th.Remote.Data()
		}
		if err := b.run(th.Remote, p.Remote, addr, size, asks); err != nil {
			return fmt.Errorf("%s: %w", th.Where(), err)
		}
		asks, th.asks = nil, nil
	}
	p.asks = nil
	return nil
}

// run lets a thread make the calls by which something is asked. There are so many bytes that they can write to.
func (b *Batch) run(th *remote.Thread, p *remote.Process, addr, size uint64, asks []func(*Batch)) error {
	*b = Batch{calls: b.calls[:0], then: b.then[:0], data: b.data, addr: addr}
	for _, ask := range asks {
		ask(b)
	}
	if b.size > size {
		return fmt.Errorf("results of %d bytes, there is room for %d: %w", b.size, size, unix.E2BIG)
	}
	if uint64(cap(b.data)) < b.size {
		b.data = make([]byte, b.size)
	}
	b.data = b.data[:b.size]
	clear(b.data)
	if b.size > 0 {
		// What a call does not fill has to be the same every time.
		if err := p.Write(addr, b.data); err != nil {
			return err
		}
	}
	if err := th.Run(b.calls); err != nil {
		return err
	}
	if b.size > 0 {
		if err := p.Read(addr, b.data); err != nil {
			return err
		}
	}
	for _, f := range b.then {
		if err := f(&Results{b}); err != nil {
			return err
		}
	}
	return nil
}
