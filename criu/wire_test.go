package criu_test

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	criurpc "github.com/checkpoint-restore/go-criu/v8/rpc"

	"stasis.example/criu/rpc"
	"stasis.example/internal/rpctable"
)

// wireMessage is what all messages of package rpc can do.
type wireMessage interface {
	Append([]byte) []byte
	Decode([]byte) error
}

// theirMessage is what all messages of go-criu's package rpc can do.
type theirMessage interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

// messageType pairs our form of a message with go-criu's.
type messageType struct {
	ours   func() wireMessage
	theirs func() theirMessage
}

func messageTypes() map[string]messageType {
	return map[string]messageType{
		"criu_page_server_info": {func() wireMessage { return new(rpc.PageServerInfo) }, func() theirMessage { return new(criurpc.CriuPageServerInfo) }},
		"criu_veth_pair":        {func() wireMessage { return new(rpc.VethPair) }, func() theirMessage { return new(criurpc.CriuVethPair) }},
		"ext_mount_map":         {func() wireMessage { return new(rpc.ExtMountMap) }, func() theirMessage { return new(criurpc.ExtMountMap) }},
		"join_namespace":        {func() wireMessage { return new(rpc.JoinNamespace) }, func() theirMessage { return new(criurpc.JoinNamespace) }},
		"inherit_fd":            {func() wireMessage { return new(rpc.InheritFD) }, func() theirMessage { return new(criurpc.InheritFd) }},
		"cgroup_root":           {func() wireMessage { return new(rpc.CgroupRoot) }, func() theirMessage { return new(criurpc.CgroupRoot) }},
		"unix_sk":               {func() wireMessage { return new(rpc.UnixSk) }, func() theirMessage { return new(criurpc.UnixSk) }},
		"criu_opts":             {func() wireMessage { return new(rpc.Opts) }, func() theirMessage { return new(criurpc.CriuOpts) }},
		"criu_dump_resp":        {func() wireMessage { return new(rpc.DumpResp) }, func() theirMessage { return new(criurpc.CriuDumpResp) }},
		"criu_restore_resp":     {func() wireMessage { return new(rpc.RestoreResp) }, func() theirMessage { return new(criurpc.CriuRestoreResp) }},
		"criu_notify":           {func() wireMessage { return new(rpc.Notify) }, func() theirMessage { return new(criurpc.CriuNotify) }},
		"criu_features":         {func() wireMessage { return new(rpc.Features) }, func() theirMessage { return new(criurpc.CriuFeatures) }},
		"criu_req":              {func() wireMessage { return new(rpc.Req) }, func() theirMessage { return new(criurpc.CriuReq) }},
		"criu_version":          {func() wireMessage { return new(rpc.Version) }, func() theirMessage { return new(criurpc.CriuVersion) }},
		"criu_resp":             {func() wireMessage { return new(rpc.Resp) }, func() theirMessage { return new(criurpc.CriuResp) }},
	}
}

// newerThanGoCRIU are the fields of the table that go-criu v8.3.0 does not have.
func newerThanGoCRIU(f rpctable.Field) bool { return f.Since == "4.3" }

// theirField is a field of one of go-criu's messages, from the tag that the protobuf compiler has given it.
type theirField struct {
	index    int
	name     string
	number   int32
	required bool
}

// theirFields lists the fields of a message of go-criu's.
func theirFields(m reflect.Type) (list []theirField) {
	for i := range m.NumField() {
		tag, ok := m.Field(i).Tag.Lookup("protobuf")
		if !ok {
			continue
		}
		parts := strings.Split(tag, ",")
		number, _ := strconv.Atoi(parts[1])
		f := theirField{index: i, number: int32(number), required: parts[2] == "req"}
		for _, p := range parts {
			if name, ok := strings.CutPrefix(p, "name="); ok {
				f.name = name
			}
		}
		list = append(list, f)
	}
	return list
}

// samples are values to try for a type: its bounds, and what lies between.
func samples(of reflect.Type) (list []reflect.Value) {
	add := func(values ...any) {
		for _, v := range values {
			list = append(list, reflect.ValueOf(v).Convert(of))
		}
	}
	switch of.Kind() {
	case reflect.Bool:
		add(true, false)
	case reflect.Int32:
		if of.PkgPath() != "" { // an enum
			add(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, -1, 1000)
		} else {
			add(0, 1, -1, 300, math.MaxInt32, math.MinInt32)
		}
	case reflect.Uint32:
		add(uint32(0), uint32(1), uint32(1<<20), uint32(math.MaxUint32))
	case reflect.String:
		add("", "text", "naïve ☃", strings.Repeat("long/", 100))
	default:
		panic("no samples of " + of.String())
	}
	return list
}

// withRequired returns a new message with its required fields set.
func withRequired(m reflect.Type) reflect.Value {
	v := reflect.New(m)
	for _, f := range theirFields(m) {
		if field := v.Elem().Field(f.index); f.required {
			field.Set(reflect.New(field.Type().Elem()))
			field.Elem().Set(samples(field.Type().Elem())[1])
		}
	}
	return v
}

// variants makes messages in which one field is set, once for each sample, beside those that are required.
func variants(m reflect.Type, f theirField) (list []reflect.Value) {
	add := func(value reflect.Value) {
		v := withRequired(m)
		v.Elem().Field(f.index).Set(value)
		list = append(list, v)
	}
	of := m.Field(f.index).Type // *T, []T, []*Message or *Message
	if of.Elem().Kind() == reflect.Struct || of.Elem().Kind() == reflect.Pointer {
		inner := of.Elem()
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		all := reflect.MakeSlice(reflect.SliceOf(reflect.PointerTo(inner)), 0, 0)
		for _, sub := range theirFields(inner) {
			if k := inner.Field(sub.index).Type.Elem().Kind(); k == reflect.Struct || k == reflect.Pointer {
				continue // one level will do: the type's own turn comes
			}
			for _, v := range variants(inner, sub) {
				all = reflect.Append(all, v)
			}
		}
		for i := range all.Len() {
			if of.Kind() == reflect.Slice {
				add(all.Slice(i, i+1))
			} else {
				add(all.Index(i))
			}
		}
		if of.Kind() == reflect.Slice {
			add(all)
		}
		return list
	}
	for _, s := range samples(of.Elem()) {
		if of.Kind() == reflect.Slice {
			add(reflect.Append(reflect.Append(reflect.MakeSlice(of, 0, 2), s), s))
		} else {
			p := reflect.New(of.Elem())
			p.Elem().Set(s)
			add(p)
		}
	}
	return list
}

// TestWireAgainstGoCRIU sets each field of each message, to several values, in go-criu's form, and has both encode it.
func TestWireAgainstGoCRIU(t *testing.T) {
	types := messageTypes()
	tried := 0
	for _, mt := range rpctable.Messages() {
		pair, ok := types[mt.Name]
		if !ok {
			t.Fatalf("the test does not know the message %s", mt.Name)
		}
		delete(types, mt.Name)
		theirs := reflect.TypeOf(pair.theirs()).Elem()
		known := map[string]theirField{}
		for _, f := range theirFields(theirs) {
			known[f.name] = f
		}
		for _, f := range mt.Fields {
			their, ok := known[f.Name]
			delete(known, f.Name)
			switch {
			case !ok && newerThanGoCRIU(f):
				continue
			case !ok:
				t.Errorf("%s: go-criu has no field %s", mt.Name, f.Name)
				continue
			case their.number != f.Num || their.required != (f.Card == rpctable.Required):
				t.Errorf("%s.%s: %+v, in go-criu %+v", mt.Name, f.Name, f, their)
			}
			for _, m := range variants(theirs, their) {
				compareWire(t, mt.Name+"."+f.Name, pair, m.Interface().(theirMessage))
				tried++
			}
		}
		for name := range known {
			t.Errorf("%s: the table has no field %s, go-criu has", mt.Name, name)
		}
	}
	for name := range types {
		t.Errorf("the table lacks the message %s", name)
	}
	t.Logf("%d messages compared", tried)
}

// compareWire holds our codec against go-criu's in both directions.
func compareWire(t *testing.T, what string, pair messageType, theirs theirMessage) {
	t.Helper()
	want, err := theirs.MarshalVT()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	ours := pair.ours()
	if err := ours.Decode(want); err != nil {
		t.Errorf("%s: decode %x: %v", what, want, err)
		return
	}
	if field := unknownIn(reflect.ValueOf(ours)); field != "" {
		t.Errorf("%s: %s was not recognised", what, field)
	}
	got := ours.Append(nil)
	if !bytes.Equal(got, want) {
		t.Errorf("%s: encoded as\n%x, go-criu's is\n%x", what, got, want)
	}
	back := pair.theirs()
	if err := back.UnmarshalVT(got); err != nil || !reflect.DeepEqual(back, theirs) {
		t.Errorf("%s: go-criu reads %v, %v; want %v", what, back, err, theirs)
	}
}

// unknownIn finds a message that holds fields it does not know.
func unknownIn(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return unknownIn(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			if s := unknownIn(v.Index(i)); s != "" {
				return s
			}
		}
	case reflect.Struct:
		if u := v.FieldByName("Unknown"); u.IsValid() && u.Len() > 0 {
			return fmt.Sprintf("%x in %s", u.Bytes(), v.Type())
		}
		for i := range v.NumField() {
			if s := unknownIn(v.Field(i)); s != "" {
				return s
			}
		}
	}
	return ""
}

// TestWireAllFieldsAtOnce fills whole requests and responses.
func TestWireAllFieldsAtOnce(t *testing.T) {
	for name, pair := range messageTypes() {
		compareWire(t, name, pair, filled(reflect.TypeOf(pair.theirs()).Elem()).Interface().(theirMessage))
	}
}

// filled returns a message with all fields set, and those of the messages in it.
func filled(m reflect.Type) reflect.Value {
	v := reflect.New(m)
	for _, f := range theirFields(m) {
		field := v.Elem().Field(f.index)
		of := field.Type()
		switch {
		case of.Elem().Kind() == reflect.Struct:
			field.Set(filled(of.Elem()))
		case of.Elem().Kind() == reflect.Pointer:
			for range 3 {
				field.Set(reflect.Append(field, filled(of.Elem().Elem())))
			}
		case of.Kind() == reflect.Slice:
			field.Set(reflect.Append(field, samples(of.Elem())...))
		default:
			s := samples(of.Elem())
			field.Set(reflect.New(of.Elem()))
			field.Elem().Set(s[f.index%len(s)])
		}
	}
	return v
}

// TestWireUnknownFields: what is not in the table survives decoding and encoding.
func TestWireUnknownFields(t *testing.T) {
	packet := (&rpc.Resp{Type: rpc.ReqCheck, Success: true}).Append(nil)
	packet = append(packet, 0xa2, 0x06, 3, 'n', 'e', 'w') // field 100, text
	resp := new(rpc.Resp)
	if err := resp.Decode(packet); err != nil {
		t.Fatal(err)
	}
	if got := resp.Append(nil); !bytes.Equal(got, packet) {
		t.Errorf("%x became %x", packet, got)
	}
}

// TestWireRefusals: what protobuf's own decoder refuses, ours does, and says where.
func TestWireRefusals(t *testing.T) {
	for name, packet := range map[string][]byte{
		"nothing":           {},
		"no success":        {0x08, 0x03},
		"no type":           {0x10, 0x01},
		"a cut tag":         {0x08},
		"a cut text":        {0x08, 0x03, 0x10, 0x01, 0x4a, 0x05, 'a'},
		"a text as number":  {0x08, 0x03, 0x10, 0x01, 0x48, 0x05},
		"a number as text":  {0x0a, 0x01, 0x03, 0x10, 0x01},
		"field zero":        {0x08, 0x03, 0x10, 0x01, 0x00, 0x00},
		"a group unended":   {0x08, 0x03, 0x10, 0x01, 0x9b, 0x06},
		"a bad submessage":  {0x08, 0x03, 0x10, 0x01, 0x1a, 0x01, 0xff},
		"a pid left out":    {0x08, 0x02, 0x10, 0x01, 0x22, 0x00},
		"an endless varint": bytes.Repeat([]byte{0xff}, 20),
	} {
		err := new(rpc.Resp).Decode(packet)
		if err == nil {
			t.Errorf("%s: decoded %x", name, packet)
		} else if !strings.Contains(err.Error(), "criu_") {
			t.Errorf("%s: error %q does not name the message", name, err)
		}
	}
}
