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
	list
	then []func() error

	// Room is memory that the batches of a tree use one after the other; nil is room of its own.
	Room *Room
}

// Room is memory for batches. A tree of many processes makes tens of thousands of calls, and so does one with as many descriptors or
// mappings: a call is small, and what only few calls have is apart from them.
type Room struct {
	spare  []list // for batches that are to be filled
	memory []byte
	table  []stub.Call
}

// list is calls, and those of their arguments that are memory, in the same order.
type list struct {
	calls  []call
	memory []memory
}

type call struct {
	what  string
	of    uint64                               // the number or the address of what it is for
	got   func(result uint64, err error) error // nil: it must succeed
	args  [6]uint64
	nr    uint32
	form  form
	parts uint8 // how many of its arguments are memory
}

// form is how a call is named in errors, and what it has to return.
type form uint8

const (
	plain    form = iota
	numbered      // what it is for has a number
	placed        // … an address
	mapped        // it is an mmap, at an address
)

// memory is an argument that is the address of some bytes.
type memory struct {
	data []byte
	back []byte // where it goes when the call has written to it; nil for nowhere
	arg  int

	inner []byte // memory that a pointer in it leads to
	place int    // where the pointer is
	at    uint64 // its address, when there is one
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
	b.add(call{what: what, nr: nr, of: uint64(of), form: numbered}, args)
}

// DoAt is Do for one of many that have addresses: "protection of the memory at", and where.
func (b *Batch) DoAt(what string, addr uint64, nr uint32, args ...Arg) {
	b.add(call{what: what, nr: nr, of: addr, form: placed}, args)
}

// Map adds an mmap, whose arguments they are, that must return the address it is given. What is what is mapped.
func (b *Batch) Map(what string, args ...Arg) {
	b.add(call{what: what, nr: unix.SYS_MMAP, of: args[0].value, form: mapped}, args)
}

// Try adds a call, and gives its result to a function that decides whether it is an error.
func (b *Batch) Try(what string, got func(result uint64, err error) error, nr uint32, args ...Arg) {
	b.add(call{what: what, nr: nr, got: got}, args)
}

// Ask adds a call that writes to the memory which is its n-th argument, counted from 0, and gives what it has written to a
// function. The call must succeed.
func (b *Batch) Ask(what string, n int, got func(result uint64, written []byte) error, nr uint32, args ...Arg) {
	back := make([]byte, len(args[n].data))
	m := b.add(call{what: what, nr: nr, got: func(result uint64, err error) error {
		if err != nil {
			return err
		}
		return got(result, back)
	}}, args)
	for i := range m {
		if m[i].arg == n {
			m[i].back = back
		}
	}
}

// DoWithPointer is Do for a call whose last argument that is memory has a pointer in it: to a copy of inner, at a place in that
// memory.
func (b *Batch) DoWithPointer(what string, inner Arg, place int, nr uint32, args ...Arg) {
	m := b.add(call{what: what, nr: nr}, args)
	last := &m[len(m)-1]
	last.inner, last.place = inner.data, place
}

// add adds a call, and returns those of its arguments that are memory.
func (b *Batch) add(c call, args []Arg) []memory {
	if b.calls == nil && b.Room != nil && len(b.Room.spare) > 0 {
		last := len(b.Room.spare) - 1
		b.list, b.Room.spare = b.Room.spare[last], b.Room.spare[:last]
	}
	first := len(b.memory)
	for i, a := range args {
		c.args[i] = a.value
		if a.data != nil {
			b.memory = append(b.memory, memory{data: a.data, arg: i})
		}
	}
	c.parts = uint8(len(b.memory) - first)
	b.calls = append(b.calls, c)
	return b.memory[first:]
}

// Then adds a function that is called when all calls were made and have succeeded.
func (b *Batch) Then(f func() error) { b.then = append(b.then, f) }

// Run lets a thread make the calls, and forgets them.
func (b *Batch) Run(p *stub.Process, th *stub.Thread) error {
	all, then := b.list, b.then
	b.list, b.then = list{}, nil
	if b.Room == nil {
		b.Room = new(Room)
	}
	for left := all; len(left.calls) > 0; {
		var err error
		if left, err = b.Room.run(p, th, left); err != nil {
			return err
		}
	}
	if len(all.calls) > 0 {
		clear(all.calls)
		clear(all.memory)
		b.Room.spare = append(b.Room.spare, list{all.calls[:0], all.memory[:0]})
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

// run makes as many calls as there is room for arguments of, and returns the others.
func (r *Room) run(p *stub.Process, th *stub.Thread, all list) (left list, err error) {
	bytes, table := r.memory[:0], r.table[:0]
	defer func() { r.memory, r.table = bytes, table }()
	left = all
	for len(left.calls) > 0 && len(table) < maxCalls {
		c := &left.calls[0]
		parts := left.memory[:c.parts]
		if need := needed(parts); len(bytes)+need > stub.ArgumentRoom {
			if len(table) == 0 {
				return all, fmt.Errorf("%s: %d bytes of arguments: %w", c.name(), need, unix.E2BIG)
			}
			break
		}
		sc := stub.Call{Nr: c.nr, Args: c.args}
		for i := range parts {
			bytes = parts[i].put(bytes, p.Arguments())
			sc.Args[parts[i].arg] = parts[i].at
		}
		table = append(table, sc)
		left.calls, left.memory = left.calls[1:], left.memory[c.parts:]
	}
	if len(bytes) > 0 {
		if err := p.Write(p.Arguments(), bytes); err != nil {
			return left, err
		}
	}
	if err := th.Run(table); err != nil {
		return left, err
	}
	for i := range table {
		c := &all.calls[i]
		if err := c.finish(p, &table[i], all.memory[:c.parts]); err != nil {
			return left, err
		}
		all.memory = all.memory[c.parts:]
	}
	return left, nil
}

// needed returns how much room arguments take.
func needed(parts []memory) int {
	n := 0
	for i := range parts {
		n += aligned(len(parts[i].data)) + aligned(len(parts[i].inner))
	}
	return n
}

func aligned(n int) int { return (n + 7) &^ 7 }

// put appends the memory to the bytes that will be at an address, and remembers where that is.
func (m *memory) put(to []byte, base uint64) []byte {
	var zeros [8]byte
	add := func(data []byte) uint64 {
		at := base + uint64(len(to))
		to = append(to, data...)
		to = append(to, zeros[:-len(to)&7]...)
		return at
	}
	if m.inner == nil {
		m.at = add(m.data)
		return to
	}
	inner := add(m.inner)
	m.at = add(m.data)
	binary.LittleEndian.PutUint64(to[int(m.at-base)+m.place:], inner)
	return to
}

func (c *call) finish(p *stub.Process, made *stub.Call, parts []memory) error {
	err := made.Err()
	for i := range parts {
		if parts[i].back != nil && err == nil {
			if rerr := p.Read(parts[i].at, parts[i].back); rerr != nil {
				return rerr
			}
		}
	}
	switch {
	case c.got != nil:
		err = c.got(made.Ret, err)
	case c.form == mapped && err == nil && made.Ret != c.of:
		err = fmt.Errorf("the kernel chose %#x", made.Ret)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.name(), err)
	}
	return nil
}

func (c *call) name() string {
	switch c.form {
	case numbered:
		return c.what + " " + strconv.FormatUint(c.of, 10)
	case placed:
		return fmt.Sprintf("%s %#x", c.what, c.of)
	case mapped:
		return fmt.Sprintf("map %#x-%#x (%s)", c.of, c.of+c.args[1], c.what)
	}
	return c.what
}
