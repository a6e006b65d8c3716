//go:build amd64

package apply

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/stub"
)

// A Batch gathers system calls for a thread to make, in order, and what is to be done afterwards.
type Batch struct {
	calls []call
	then  []func() error

	// Room is memory that the batches of a tree use one after the other; nil is room of its own.
	Room *Room
}

// Room is memory for batches. A tree of many processes makes tens of thousands of calls.
type Room struct {
	spare  [][]call // for batches that are to be filled
	memory []byte
	table  []stub.Call
	places [][6]uint64
}

type call struct {
	what string
	of   int // the number of what it is for; 0 for none
	nr   uint32
	args [6]Arg
	got  func(result uint64, err error) error // nil: it must succeed
	back []byte                               // where memory goes that the call has written
	from int                                  // the argument that is that memory

	inner Arg // memory that a pointer in the last argument that is memory leads to
	place int // where in that the pointer is
}

// An Arg is an argument of a call: a number, or the address of some bytes.
type Arg struct {
	value uint64
	data  []byte
}

// Num is an argument that is a number.
func Num[T ~int | ~int32 | ~int64 | ~uint32 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{value: uint64(v)}
}

// Bytes is the address of memory with these bytes, aligned to eight.
func Bytes(b []byte) Arg {
	if len(b) == 0 {
		b = make([]byte, 1) // an address all the same
	}
	return Arg{data: b}
}

// Text is the address of a string that ends in a zero byte.
func Text(s string) Arg { return Arg{data: append([]byte(s), 0)} }

// Words is the address of 64-bit words.
func Words(words ...uint64) Arg {
	b := make([]byte, 0, 8*len(words))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return Bytes(b)
}

// Words32 is the address of 32-bit words.
func Words32(words ...uint32) Arg {
	b := make([]byte, 0, 4*len(words))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return Bytes(b)
}

// Do adds a call that must succeed. What names it, or what it is for, in the error: "setgroups", "timer_create of timer 3".
func (b *Batch) Do(what string, nr uint32, args ...Arg) { b.add(call{what: what, nr: nr}, args) }

// DoFor is Do for one of many that have numbers: "rt_sigaction of signal", and which.
func (b *Batch) DoFor(what string, of int, nr uint32, args ...Arg) {
	b.add(call{what: what, of: of, nr: nr}, args)
}

// Try adds a call, and gives its result to a function that decides whether it is an error.
func (b *Batch) Try(what string, got func(result uint64, err error) error, nr uint32, args ...Arg) {
	b.add(call{what: what, nr: nr, got: got}, args)
}

// Ask adds a call that writes to the memory which is its n-th argument, counted from 0, and gives what it has written to a
// function. The call must succeed.
func (b *Batch) Ask(what string, n int, got func(result uint64, written []byte) error, nr uint32, args ...Arg) {
	back := make([]byte, len(args[n].data))
	b.add(call{what: what, nr: nr, back: back, from: n, got: func(result uint64, err error) error {
		if err != nil {
			return err
		}
		return got(result, back)
	}}, args)
}

// DoWithPointer is Do for a call whose last argument that is memory has a pointer in it: to a copy of inner, at a place in that
// memory.
func (b *Batch) DoWithPointer(what string, inner Arg, place int, nr uint32, args ...Arg) {
	b.add(call{what: what, nr: nr, inner: inner, place: place}, args)
}

func (b *Batch) add(c call, args []Arg) {
	copy(c.args[:], args)
	if b.calls == nil && b.Room != nil && len(b.Room.spare) > 0 {
		last := len(b.Room.spare) - 1
		b.calls, b.Room.spare = b.Room.spare[last], b.Room.spare[:last]
	}
	b.calls = append(b.calls, c)
}

// Then adds a function that is called when all calls were made and have succeeded.
func (b *Batch) Then(f func() error) { b.then = append(b.then, f) }

// Run lets a thread make the calls, and forgets them.
func (b *Batch) Run(p *stub.Process, th *stub.Thread) error {
	calls, then := b.calls, b.then
	b.calls, b.then = nil, nil
	if b.Room == nil {
		b.Room = new(Room)
	}
	for left := calls; len(left) > 0; {
		n, err := b.Room.run(p, th, left)
		if err != nil {
			return err
		}
		left = left[n:]
	}
	if len(calls) > 0 {
		clear(calls)
		b.Room.spare = append(b.Room.spare, calls[:0])
	}
	for _, f := range then {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// maxCalls is how many calls are made in one go. A call that fails does not keep those behind it in the same go from being
// made; what they do is of a process that will not be.
const maxCalls = 1024

// run makes as many calls as there is room for arguments of.
func (r *Room) run(p *stub.Process, th *stub.Thread, calls []call) (int, error) {
	var zeros [8]byte
	memory, table, places := r.memory[:0], r.table[:0], r.places[:0]
	defer func() { r.memory, r.table, r.places = memory, table, places }()
	for i := range calls {
		c := &calls[i]
		need := (len(c.inner.data) + 7) &^ 7
		for _, a := range c.args {
			need += (len(a.data) + 7) &^ 7
		}
		if len(table) == maxCalls || len(memory)+need > stub.ArgumentRoom {
			if len(table) == 0 {
				return 0, fmt.Errorf("%s: %d bytes of arguments: %w", c.name(), need, unix.E2BIG)
			}
			break
		}
		sc := stub.Call{Nr: c.nr}
		put := func(data []byte) (at int) {
			at = len(memory)
			memory = append(memory, data...)
			memory = append(memory, zeros[:-len(memory)&7]...)
			return at
		}
		inner, last := -1, 0
		if c.inner.data != nil {
			inner = put(c.inner.data)
		}
		for j, a := range c.args {
			sc.Args[j] = a.value
			if a.data != nil {
				last = put(a.data)
				sc.Args[j] = p.Arguments() + uint64(last)
			}
		}
		if inner >= 0 {
			binary.LittleEndian.PutUint64(memory[last+c.place:], p.Arguments()+uint64(inner))
		}
		table = append(table, sc)
		places = append(places, sc.Args)
	}
	if len(memory) > 0 {
		if err := p.Write(p.Arguments(), memory); err != nil {
			return 0, err
		}
	}
	if err := th.Run(table); err != nil {
		return 0, err
	}
	for i := range table {
		if err := calls[i].finish(p, &table[i], places[i]); err != nil {
			return 0, err
		}
	}
	return len(table), nil
}

func (c *call) finish(p *stub.Process, made *stub.Call, args [6]uint64) error {
	err := made.Err()
	if c.back != nil && err == nil {
		if rerr := p.Read(args[c.from], c.back); rerr != nil {
			return rerr
		}
	}
	if c.got != nil {
		err = c.got(made.Ret, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.name(), err)
	}
	return nil
}

func (c *call) name() string {
	if c.of == 0 {
		return c.what
	}
	return c.what + " " + strconv.Itoa(c.of)
}
