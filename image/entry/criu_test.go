package entry

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	_ "stasis.example/image/internal/criuproto"
	"stasis.example/image/internal/schema"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// theirs makes go-criu's message of a name.
func theirs(t testing.TB, name string) protoreflect.Message {
	t.Helper()
	typ, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return typ.New()
}

func encode(t testing.TB, m protoreflect.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edges are the numbers at which varints and conversions change their form.
var edges = []uint64{0, 1, 127, 128, 1<<14 - 1, 1 << 14, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32, 1 << 32, math.MaxInt64, 1 << 63, math.MaxUint64}

func value(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := edges[r.IntN(len(edges))]
	text := fmt.Sprintf("%.*s", r.IntN(200), "päth/\x00\n"+string(make([]byte, 300)))
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOf(n&1 == 1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOf(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOf(n)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOf(int32(n))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind:
		return protoreflect.ValueOf(int64(n))
	case protoreflect.StringKind:
		return protoreflect.ValueOf(text)
	case protoreflect.BytesKind:
		return protoreflect.ValueOf([]byte(text))
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOf(values.Get(r.IntN(values.Len())).Number())
	}
	panic("a kind that no image has: " + f.Kind().String())
}

// fill sets required fields, and others by chance.
func fill(r *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		required := f.Cardinality() == protoreflect.Required
		if !required && (r.IntN(3) == 0 || depth == 0) {
			continue
		}
		switch {
		case f.IsList():
			list := m.Mutable(f).List()
			for range r.IntN(20) {
				if f.Message() != nil {
					fill(r, list.AppendMutable().Message(), depth-1)
				} else {
					list.Append(value(r, f))
				}
			}
		case f.Message() != nil:
			fill(r, m.Mutable(f).Message(), depth-1)
		default:
			m.Set(f, value(r, f))
		}
	}
}

// same compares our message with theirs field by field: presence and value.
func same(t *testing.T, ours reflect.Value, m protoreflect.Message) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		v := ours.FieldByName(schema.GoName(string(f.Name())))
		if !v.IsValid() {
			t.Fatalf("%s: no field for %s", ours.Type(), f.Name())
		}
		if f.IsList() {
			list := m.Get(f).List()
			if v.Len() != list.Len() {
				t.Fatalf("%s: %d elements, want %d", f.FullName(), v.Len(), list.Len())
			}
			for j := range list.Len() {
				sameValue(t, f, v.Index(j), list.Get(j))
			}
			continue
		}
		if f.Cardinality() == protoreflect.Optional {
			if m.Has(f) == v.IsNil() {
				t.Fatalf("%s: there is %v, want %v", f.FullName(), !v.IsNil(), m.Has(f))
			}
			if f.Message() == nil && f.Kind() != protoreflect.BytesKind {
				got := ours.Addr().MethodByName("Get" + schema.GoName(string(f.Name()))).Call(nil)
				sameValue(t, f, got[0], m.Get(f)) // the value, or the default
			}
			if !m.Has(f) {
				continue
			}
			if v.Kind() == reflect.Pointer {
				v = v.Elem()
			}
		}
		sameValue(t, f, v, m.Get(f))
	}
}

func sameValue(t *testing.T, f protoreflect.FieldDescriptor, ours reflect.Value, want protoreflect.Value) {
	t.Helper()
	if f.Message() != nil {
		same(t, ours, want.Message())
		return
	}
	got, wanted := ours.Interface(), want.Interface()
	if f.Kind() == protoreflect.EnumKind {
		got, wanted = ours.Int(), int64(want.Enum())
	}
	if !reflect.DeepEqual(got, wanted) {
		t.Fatalf("%s = %#v, want %#v", f.FullName(), got, wanted)
	}
}

// TestAgainstProtobuf fills every message of the schema many times, encodes it with google's protobuf and go-criu's
// types, and wants from ours the same fields after Decode and the same bytes after Append.
func TestAgainstProtobuf(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				m := theirs(t, name)
				fill(r, m, 3)
				want := encode(t, m)
				ours := all[name]()
				if ours.Schema() != name {
					t.Fatalf("Schema() = %q", ours.Schema())
				}
				if err := ours.Decode(want); err != nil {
					t.Fatalf("Decode(% x): %v", want, err)
				}
				same(t, reflect.ValueOf(ours).Elem(), m)
				got := ours.Append([]byte("before"))
				if !bytes.Equal(got, append([]byte("before"), want...)) {
					t.Fatalf("Append\n got % x\nwant % x", got[len("before"):], want)
				}
			}
		})
	}
}

// FuzzDecode holds Decode against protobuf on any input: what we take, protobuf takes too, and it sees the same message in
// what we write. (We refuse more: see Decode.) The first byte picks the message.
func FuzzDecode(f *testing.F) {
	names := slices.Sorted(maps.Keys(all))
	r := rand.New(rand.NewPCG(3, 4))
	for i, name := range names {
		m := theirs(f, name)
		fill(r, m, 3)
		f.Add(uint8(i), encode(f, m))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		name := names[int(which)%len(names)]
		ours := all[name]()
		if ours.Decode(b) != nil {
			return
		}
		want := theirs(t, name).Interface()
		if err := proto.Unmarshal(b, want); err != nil {
			t.Fatalf("%s: we take % x, protobuf says %v", name, b, err)
		}
		out := ours.Append(nil)
		got := theirs(t, name).Interface()
		if err := proto.Unmarshal(out, got); err != nil {
			t.Fatalf("%s: we wrote % x, protobuf says %v", name, out, err)
		}
		if !proto.Equal(got, want) {
			t.Fatalf("%s: % x became % x", name, b, out)
		}
		again := all[name]()
		if err := again.Decode(out); err != nil {
			t.Fatalf("%s: cannot read again % x: %v", name, out, err)
		}
		if !reflect.DeepEqual(again, ours) {
			t.Fatalf("%s: % x reads as %+v, then as %+v", name, b, ours, again)
		}
	})
}
