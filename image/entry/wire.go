package entry

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message is an entry of an image, or a part of one. All types of this package that hold fields implement it, by pointer.
type Message interface {
	// Schema returns the name that CRIU's schema has for the type, "vma_entry" for one.
	Schema() string
	// Append appends the encoding to b and returns the extended slice. Fields go in the order of their numbers, unknown
	// fields last, which is how CRIU and protobuf write them.
	Append(b []byte) []byte
	// Decode replaces the receiver by what b holds. Nothing of b is kept. On error the receiver is left half filled.
	Decode(b []byte) error

	decode(b []byte, depth int) error
}

// ErrSyntax is what every error of Decode wraps: the bytes are not an encoding of the message.
var ErrSyntax = errors.New("malformed entry")

// MaxDepth is how deep messages may nest. Only cgroup directories and AppArmor namespaces nest without end of their own;
// hostile input would exhaust the stack.
const MaxDepth = 100

// cursor walks over the fields of one message. The first error ends the walk and is kept in err.
type cursor struct {
	schema string
	rest   []byte // what comes after the field that was read last
	field  []byte // the present field and all after it
	value  []byte // the present field without its tag, and all after it
	num    protowire.Number
	typ    protowire.Type
	err    error
}

// next moves to the next field and reports whether there is one.
func (c *cursor) next() bool {
	if c.err != nil || len(c.rest) == 0 {
		return false
	}
	if tag := c.rest[0]; tag < 0x80 && tag >= 1<<3 { // nearly all tags are one byte
		c.field, c.value = c.rest, c.rest[1:]
		c.num, c.typ = protowire.Number(tag>>3), protowire.Type(tag&7)
		return true
	}
	num, typ, n := protowire.ConsumeTag(c.rest)
	if n < 0 || num > protowire.MaxValidNumber {
		c.err = fmt.Errorf("%w: %s: bad tag at % x", ErrSyntax, c.schema, head(c.rest))
		return false
	}
	c.field, c.value = c.rest, c.rest[n:]
	c.num, c.typ = num, typ
	return true
}

// end returns the error of a whole message: the first that was met, or a required field that is missing. seen and want
// have a bit for each name of required, which are separated by blanks.
func (c *cursor) end(seen, want uint64, required string) error {
	if c.err != nil || seen == want {
		return c.err
	}
	for i, name := range strings.Fields(required) {
		if seen&(1<<i) == 0 {
			return fmt.Errorf("%w: %s: required field %s is missing", ErrSyntax, c.schema, name)
		}
	}
	return nil
}

func (c *cursor) fail(name, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s.%s: %s", ErrSyntax, c.schema, name, fmt.Sprintf(format, args...))
	}
}

// expect checks the wire type. A known field of another type is an error, as it is for CRIU's decoder; protobuf would
// treat it as unknown, and then a damaged image could restore with a field silently missing.
func (c *cursor) expect(name string, typ protowire.Type) bool {
	if c.typ == typ {
		return true
	}
	c.fail(name, "field %d has wire type %d, want %d", c.num, c.typ, typ)
	return false
}

func (c *cursor) varint(name string) uint64 {
	if !c.expect(name, protowire.VarintType) {
		return 0
	}
	if len(c.value) > 0 && c.value[0] < 0x80 {
		v := uint64(c.value[0])
		c.rest = c.value[1:]
		return v
	}
	v, n := protowire.ConsumeVarint(c.value)
	if n < 0 {
		c.fail(name, "bad varint % x", head(c.value))
		return 0
	}
	c.rest = c.value[n:]
	return v
}

func (c *cursor) uint64(name string) uint64 { return c.varint(name) }
func (c *cursor) int64(name string) int64   { return int64(c.varint(name)) }
func (c *cursor) sint64(name string) int64  { return protowire.DecodeZigZag(c.varint(name)) }
func (c *cursor) bool(name string) bool     { return c.varint(name) != 0 }

// uint32 refuses what does not fit: cutting it off would be a silent change of meaning.
func (c *cursor) uint32(name string) uint32 { return c.narrow32(name, c.varint(name)) }

func (c *cursor) narrow32(name string, v uint64) uint32 {
	if v > math.MaxUint32 {
		c.fail(name, "%d does not fit 32 bits", v)
	}
	return uint32(v)
}

// int32 takes negative numbers in ten bytes, as protobuf has them, and in five, which some writers have made of them.
func (c *cursor) int32(name string) int32 {
	v := c.varint(name)
	if high := v >> 31; high > 1 && high != 1<<33-1 {
		c.fail(name, "%d does not fit 32 bits", int64(v))
	}
	return int32(v)
}

func (c *cursor) sint32(name string) int32 {
	return int32(protowire.DecodeZigZag(uint64(c.uint32(name))))
}

func (c *cursor) fixed64(name string) uint64 {
	if !c.expect(name, protowire.Fixed64Type) {
		return 0
	}
	v, n := protowire.ConsumeFixed64(c.value)
	if n < 0 {
		c.fail(name, "cut off: % x", head(c.value))
		return 0
	}
	c.rest = c.value[n:]
	return v
}

// raw returns the content of a length-delimited field; it is part of the input.
func (c *cursor) raw(name string) []byte {
	if !c.expect(name, protowire.BytesType) {
		return nil
	}
	v, n := protowire.ConsumeBytes(c.value)
	if n < 0 {
		c.fail(name, "cut off: % x", head(c.value))
		return nil
	}
	c.rest = c.value[n:]
	return v
}

func (c *cursor) string(name string) string { return string(c.raw(name)) }

// bytes never returns nil but on error: a field that is there and empty is not a field that is not there.
func (c *cursor) bytes(name string) []byte { return append([]byte{}, c.raw(name)...) }

// message decodes a field into m. depth is how much deeper messages may nest.
func (c *cursor) message(name string, depth int, m Message) {
	b := c.raw(name)
	if c.err != nil {
		return
	}
	if depth == 0 {
		c.fail(name, "more than %d messages inside each other", MaxDepth)
		return
	}
	if err := m.decode(b, depth-1); err != nil {
		c.err = fmt.Errorf("%s.%s: %w", c.schema, name, err)
	}
}

// once fails if a message field that may stand once stands again. Protobuf would merge the two; no writer makes such, and
// two readers of one image must not see different things.
func (c *cursor) once(name string, again bool) {
	if again {
		c.fail(name, "occurs twice")
	}
}

// unknown appends the present field, whole, to b.
func (c *cursor) unknown(b []byte) []byte {
	if c.typ == protowire.StartGroupType || c.typ == protowire.EndGroupType {
		c.fail("?", "field %d is a group, which no image has", c.num)
		return b
	}
	n := protowire.ConsumeFieldValue(c.num, c.typ, c.value)
	if n < 0 {
		c.fail("?", "unknown field %d is cut off", c.num)
		return b
	}
	c.rest = c.value[n:]
	return append(b, c.field[:len(c.field)-len(c.rest)]...)
}

// run returns how many fields with the number and type of the present one follow each other, the present one counted, so
// that a slice is allocated once.
func (c *cursor) run() int {
	tag := c.field[:len(c.field)-len(c.value)]
	n, b := 0, c.field
	for len(b) >= len(tag) && string(b[:len(tag)]) == string(tag) {
		l := protowire.ConsumeFieldValue(c.num, c.typ, b[len(tag):])
		if l < 0 {
			break
		}
		b = b[len(tag)+l:]
		n++
	}
	return n
}

// grown makes room for the run that begins here.
func grown[T any](c *cursor, s []T) []T {
	if len(s) < cap(s) {
		return s
	}
	return slices.Grow(s, c.run())
}

// The methods for repeated scalars take packed fields too: CRIU does not pack, but a reader must. They are four times the
// same, because a function value for the element would move every cursor to the heap.

func (c *cursor) uint32s(s []uint32, name string) []uint32 {
	if c.typ != protowire.BytesType {
		return append(grown(c, s), c.uint32(name))
	}
	p, after := c.raw(name), c.rest
	for c.packed(p, after, protowire.VarintType) {
		s = append(s, c.uint32(name))
		p = c.rest
	}
	return s
}

func (c *cursor) uint64s(s []uint64, name string) []uint64 {
	if c.typ != protowire.BytesType {
		return append(grown(c, s), c.uint64(name))
	}
	p, after := c.raw(name), c.rest
	for c.packed(p, after, protowire.VarintType) {
		s = append(s, c.uint64(name))
		p = c.rest
	}
	return s
}

func (c *cursor) int32s(s []int32, name string) []int32 {
	if c.typ != protowire.BytesType {
		return append(grown(c, s), c.int32(name))
	}
	p, after := c.raw(name), c.rest
	for c.packed(p, after, protowire.VarintType) {
		s = append(s, c.int32(name))
		p = c.rest
	}
	return s
}

func (c *cursor) fixed64s(s []uint64, name string) []uint64 {
	if c.typ != protowire.BytesType {
		return append(grown(c, s), c.fixed64(name))
	}
	p, after := c.raw(name), c.rest
	for c.packed(p, after, protowire.Fixed64Type) {
		s = append(s, c.fixed64(name))
		p = c.rest
	}
	return s
}

// packed makes the first element of p the present field, or goes on with what comes after the packed field.
func (c *cursor) packed(p, after []byte, typ protowire.Type) bool {
	if c.err != nil {
		return false
	}
	if len(p) == 0 {
		c.rest = after
		return false
	}
	c.value, c.typ = p, typ
	return true
}

// room appends a zero element for a repeated message and returns it for decoding.
func room[T any](c *cursor, s *[]T) *T {
	*s = append(grown(c, *s), *new(T))
	return &(*s)[len(*s)-1]
}

// set makes an optional field. It is not inlined: there are hundreds of such fields, and what a program has of code it has in memory.
//
//go:noinline
func set[T any](field **T, v T) { *field = &v }

// The following append a field with its tag. For the same reason they are calls.

//go:noinline
func varint(b []byte, tag, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendVarint(b, tag), v)
}

//go:noinline
func fixed64(b []byte, tag, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendVarint(b, tag), v)
}

//go:noinline
func text[T string | []byte](b []byte, tag uint64, v T) []byte {
	return append(protowire.AppendVarint(protowire.AppendVarint(b, tag), uint64(len(v))), v...)
}

// begin appends the tag of a message, with room for the length of a short one.
//
//go:noinline
func begin(b []byte, tag uint64) []byte { return append(protowire.AppendVarint(b, tag), 0) }

// end puts in the length of a message that began at a place.
//
//go:noinline
func end(b []byte, at int) []byte {
	n := uint64(len(b) - at)
	if n < 0x80 {
		b[at-1] = byte(n)
		return b
	}
	var room [10]byte
	size := protowire.AppendVarint(room[:0], n)
	b = append(b, size[1:]...)
	copy(b[at+len(size)-1:], b[at:at+int(n)])
	copy(b[at-1:], size)
	return b
}

func head(b []byte) []byte { return b[:min(len(b), 12)] }

func boolVarint(v bool) uint64 {
	if v {
		return 1
	}
	return 0
}
