// Package rpc holds the messages of CRIU's RPC and their wire form.
//
// Most programs want package criu, which says the same with checked options, typed errors and whole operations. This
// package is for those who stand on the other side of a [stasis.example/criu.Transport], for servers and proxies, and for what package criu has
// no name for yet.
//
// A conversation is a sequence of packets on an AF_UNIX SOCK_SEQPACKET socket; each packet is one [Req] (client to
// peer) or one [Resp] (peer to client) in protobuf 2 encoding. A Resp of type NOTIFY is not the answer but a
// notification, and is answered by a Req of type NOTIFY.
//
// Optional fields are pointers: nil is "not sent". Unknown fields survive decoding and encoding. The messages are
// generated from the project's RPC table; the codec uses no reflection.
package rpc

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// MaxMessage is the largest packet, in bytes, that this project sends or accepts. CRIU's own answers are a few hundred
// bytes; requests grow with the number of mounts and external resources.
const MaxMessage = 1 << 20

// ErrMalformed is in the chain of every error of the Decode methods.
var ErrMalformed = errors.New("malformed message")

// decoder walks over the fields of one message. The first error sticks; the reading methods then return zero values.
type decoder struct {
	message string
	rest    []byte
	field   []byte // the current field, with its tag
	num     protowire.Number
	typ     protowire.Type
	tagLen  int
	seen    uint // bits of the required fields that came
	err     error
}

// next moves on to the next field.
func (d *decoder) next() bool {
	if d.err != nil || len(d.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(d.rest)
	if n < 0 {
		d.fail(protowire.ParseError(n))
		return false
	}
	m := protowire.ConsumeFieldValue(num, typ, d.rest[n:])
	if m < 0 {
		d.num = num
		d.fail(protowire.ParseError(m))
		return false
	}
	d.num, d.typ, d.tagLen = num, typ, n
	d.field, d.rest = d.rest[:n+m], d.rest[n+m:]
	return true
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s, field %d: %w", ErrMalformed, d.message, d.num, err)
	}
}

func (d *decoder) varint() uint64 {
	if d.typ != protowire.VarintType {
		d.fail(fmt.Errorf("wire type %d where a number belongs", d.typ))
		return 0
	}
	v, _ := protowire.ConsumeVarint(d.field[d.tagLen:])
	return v
}

func (d *decoder) bool() bool { return d.varint() != 0 }

// int32 reads a number as protobuf does: the lower 32 bits count.
func (d *decoder) int32() int32 { return int32(d.varint()) }

func (d *decoder) uint32() uint32 { return uint32(d.varint()) }

func (d *decoder) bytes() []byte {
	if d.typ != protowire.BytesType {
		d.fail(fmt.Errorf("wire type %d where text or a message belongs", d.typ))
		return nil
	}
	v, _ := protowire.ConsumeBytes(d.field[d.tagLen:])
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) sub(m interface{ Decode([]byte) error }) {
	v := d.bytes()
	if d.err != nil {
		return
	}
	if err := m.Decode(v); err != nil {
		d.err = err
	}
}

// skip returns the current field, tag and all.
func (d *decoder) skip() []byte { return d.field }

// done checks that each of the required fields came.
func (d *decoder) done(required ...string) error {
	if d.err != nil {
		return d.err
	}
	for i, name := range required {
		if d.seen&(1<<i) == 0 {
			return fmt.Errorf("%w: %s lacks %s", ErrMalformed, d.message, name)
		}
	}
	return nil
}
