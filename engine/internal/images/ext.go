package images

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// extension is the number of the one field that stasis adds to entries of CRIU's, for what CRIU does not save. CRIU and crit
// skip what they do not know. The field is a message of its own; the numbers in it are given by whoever writes it.
const extension = 22437

// An Extension is the content of that field: numbers and bytes by their number.
type Extension struct {
	fields []extensionField
}

type extensionField struct {
	num   protowire.Number
	bytes bool
	n     uint64
	b     []byte
}

// SetNumber adds a number.
func (e *Extension) SetNumber(field int, v uint64) {
	e.fields = append(e.fields, extensionField{num: protowire.Number(field), n: v})
}

// SetBytes adds bytes.
func (e *Extension) SetBytes(field int, v []byte) {
	e.fields = append(e.fields, extensionField{num: protowire.Number(field), bytes: true, b: v})
}

// Number returns a number, nil where there is none.
func (e *Extension) Number(field int) *uint64 {
	for _, f := range e.fields {
		if int(f.num) == field && !f.bytes {
			return &f.n
		}
	}
	return nil
}

// Bytes returns bytes and whether there are any.
func (e *Extension) Bytes(field int) ([]byte, bool) {
	for _, f := range e.fields {
		if int(f.num) == field && f.bytes {
			return f.b, true
		}
	}
	return nil, false
}

// AppendTo appends the extension to the unknown fields of an entry. One without fields appends nothing.
func (e *Extension) AppendTo(unknown []byte) []byte {
	if len(e.fields) == 0 {
		return unknown
	}
	var b []byte
	for _, f := range e.fields {
		if f.bytes {
			b = protowire.AppendTag(b, f.num, protowire.BytesType)
			b = protowire.AppendBytes(b, f.b)
			continue
		}
		b = protowire.AppendTag(b, f.num, protowire.VarintType)
		b = protowire.AppendVarint(b, f.n)
	}
	unknown = protowire.AppendTag(unknown, extension, protowire.BytesType)
	return protowire.AppendBytes(unknown, b)
}

// ParseExtension finds the extension in the unknown fields of an entry. Without one the result is empty.
func ParseExtension(unknown []byte) (Extension, error) {
	var e Extension
	for len(unknown) > 0 {
		num, typ, n := protowire.ConsumeTag(unknown)
		if n < 0 {
			return e, protowire.ParseError(n)
		}
		rest := unknown[n:]
		size := protowire.ConsumeFieldValue(num, typ, rest)
		if size < 0 {
			return e, protowire.ParseError(size)
		}
		unknown = rest[size:]
		if num != extension {
			continue
		}
		if typ != protowire.BytesType {
			return e, fmt.Errorf("field %d is no message", num)
		}
		b, _ := protowire.ConsumeBytes(rest)
		if err := e.parse(b); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (e *Extension) parse(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		f := extensionField{num: num}
		switch typ {
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes = true
			f.b, n = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("field %d.%d is of wire type %d", extension, num, typ)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		e.fields = append(e.fields, f)
	}
	return nil
}

// fieldNumbers returns the numbers of encoded fields.
func fieldNumbers(b []byte) []protowire.Number {
	var nums []protowire.Number
	for len(b) > 0 {
		num, _, n := protowire.ConsumeField(b)
		if n < 0 {
			break
		}
		nums = append(nums, num)
		b = b[n:]
	}
	return nums
}
