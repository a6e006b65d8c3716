//go:build amd64

package collect

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
)

// A Batch gathers system calls for a thread to make, and what is to be done with their results.
type Batch struct {
	calls []call
	room  uint64 // bytes
	then  []func(*Results) error
}

type call struct {
	nr   uint32
	args []Arg
}

// An Arg is an argument of a call in a Batch.
type Arg struct {
	value uint64
	room  bool // value is an offset in the room
}

// Num is an argument that is a number.
func Num(v uint64) Arg { return Arg{value: v} }

// Room sets aside memory that calls can write to, aligned for anything.
func (b *Batch) Room(size uint64) Arg {
	a := Arg{value: b.room, room: true}
	b.room += (size + 7) &^ 7
	return a
}

// A CallID names a call of a Batch.
type CallID int

// Call adds a call.
func (b *Batch) Call(nr uint32, args ...Arg) CallID {
	b.calls = append(b.calls, call{nr, args})
	return CallID(len(b.calls) - 1)
}

// Then adds a function that is called when all calls were made.
func (b *Batch) Then(f func(*Results) error) { b.then = append(b.then, f) }

// Empty reports whether nothing was asked for.
func (b *Batch) Empty() bool { return len(b.calls) == 0 && len(b.then) == 0 }

// Results are what the calls of a Batch returned.
type Results struct {
	calls []remote.Call
	data  []byte
}

// Value returns what a call returned, and its errno as an error.
func (r *Results) Value(c CallID) (uint64, error) {
	return r.calls[c].Ret, r.calls[c].Err()
}

// Data returns what is in room that was set aside.
func (r *Results) Data(room Arg, size uint64) []byte { return r.data[room.value:][:size] }

// RunInside makes the calls that the kinds have asked for in a process, which was entered, and lets them see the results.
func (p *Process) RunInside() error {
	// A tree of many processes need not keep what all of them were asked.
	defer func() {
		p.Inside = Batch{}
		for _, th := range p.Threads {
			th.Inside = Batch{}
		}
	}()
	addr, size := p.Remote.Data()
	if err := p.Inside.run(p.Remote, addr, size, p.Remote.Run); err != nil {
		return fmt.Errorf("%s: %w", p.Where(), err)
	}
	for i, th := range p.Threads {
		addr, size, run := addr, size, p.Remote.Run
		if i > 0 {
			addr, size = th.Remote.Data()
			run = th.Remote.Run
		}
		if err := th.Inside.run(p.Remote, addr, size, run); err != nil {
			return fmt.Errorf("%s: %w", th.Where(), err)
		}
	}
	return nil
}

// Merge moves what the first thread is asked for to what the process is asked for: the same thread does both.
func (p *Process) Merge() {
	if len(p.Threads) == 0 {
		return
	}
	from := &p.Threads[0].Inside
	first, base := CallID(len(p.Inside.calls)), p.Inside.room
	for _, c := range from.calls {
		args := make([]Arg, len(c.args))
		for i, a := range c.args {
			if a.room {
				a.value += base
			}
			args[i] = a
		}
		p.Inside.calls = append(p.Inside.calls, call{c.nr, args})
	}
	p.Inside.room += from.room
	calls := CallID(len(from.calls))
	room := from.room
	for _, f := range from.then {
		p.Inside.then = append(p.Inside.then, func(r *Results) error {
			return f(&Results{r.calls[first : first+calls], r.data[base : base+room]})
		})
	}
	*from = Batch{}
}

func (b *Batch) run(p *remote.Process, addr, size uint64, run func([]remote.Call) error) error {
	if b.Empty() {
		return nil
	}
	if b.room > size {
		return fmt.Errorf("results of %d bytes, there is room for %d: %w", b.room, size, unix.E2BIG)
	}
	calls := make([]remote.Call, len(b.calls))
	for i, c := range b.calls {
		calls[i].Nr = c.nr
		for j, a := range c.args {
			calls[i].Args[j] = a.value
			if a.room {
				calls[i].Args[j] += addr
			}
		}
	}
	r := &Results{calls: calls, data: make([]byte, b.room)}
	if b.room > 0 {
		// What a call does not fill has to be the same every time.
		if err := p.Write(addr, r.data); err != nil {
			return err
		}
	}
	if err := run(calls); err != nil {
		return err
	}
	if b.room > 0 {
		if err := p.Read(addr, r.data); err != nil {
			return err
		}
	}
	for _, f := range b.then {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// Plus is an address in room, so many bytes after its beginning.
func (a Arg) Plus(n uint64) Arg {
	a.value += n
	return a
}
