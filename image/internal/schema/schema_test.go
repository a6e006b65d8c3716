package schema_test

import (
	"strings"
	"testing"

	_ "stasis.example/image/internal/criuproto"
	"stasis.example/image/internal/schema"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// theirs returns all messages and enums of the schema that go-criu ships.
func theirs() (messages map[string]protoreflect.MessageDescriptor, enums map[string]protoreflect.EnumDescriptor) {
	messages = map[string]protoreflect.MessageDescriptor{}
	enums = map[string]protoreflect.EnumDescriptor{}
	addEnums := func(list protoreflect.EnumDescriptors) {
		for i := range list.Len() {
			enums[string(list.Get(i).FullName())] = list.Get(i)
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(f.Path(), "google/") || f.Path() == "opts.proto" {
			return true // protobuf's own, and CRIU's annotations for crit
		}
		addEnums(f.Enums())
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			messages[string(m.FullName())] = m
			addEnums(m.Enums())
		}
		return true
	})
	return messages, enums
}

func TestMessagesAreCRIUs(t *testing.T) {
	want, _ := theirs()
	if len(want) < 100 {
		t.Fatalf("go-criu has %d messages; is its schema linked in?", len(want))
	}
	for _, group := range schema.Groups() {
		for _, m := range group.Messages {
			d := want[m.Name]
			if d == nil {
				t.Errorf("%s: not in CRIU's schema, or twice in ours", m.Name)
				continue
			}
			delete(want, m.Name)
			if d.Fields().Len() != len(m.Fields) {
				t.Errorf("%s: %d fields, CRIU has %d", m.Name, len(m.Fields), d.Fields().Len())
			}
			for _, f := range m.Fields {
				checkField(t, m.Name, f, d.Fields().ByNumber(protoreflect.FieldNumber(f.Num)))
			}
		}
	}
	for name := range want {
		t.Errorf("%s: CRIU has it, the table has not", name)
	}
}

func checkField(t *testing.T, message string, f schema.Field, d protoreflect.FieldDescriptor) {
	t.Helper()
	if d == nil {
		t.Errorf("%s.%s: CRIU has no field %d", message, f.Name, f.Num)
		return
	}
	got := f
	want := schema.Field{
		Num: int32(d.Number()), Name: string(d.Name()), Type: d.Kind().String(), Help: f.Help,
		Label: map[protoreflect.Cardinality]schema.Label{
			protoreflect.Optional: schema.Optional, protoreflect.Required: schema.Required, protoreflect.Repeated: schema.Repeated,
		}[d.Cardinality()],
	}
	switch d.Kind() {
	case protoreflect.MessageKind:
		want.Type = string(d.Message().FullName())
	case protoreflect.EnumKind:
		want.Type = string(d.Enum().FullName())
	}
	if d.HasDefault() {
		want.Default = d.Default().String()
		if d.Kind() == protoreflect.EnumKind {
			want.Default = string(d.DefaultEnumValue().Name())
		}
	}
	if got != want {
		t.Errorf("%s: row %+v, CRIU has %+v", message, got, want)
	}
	if d.IsPacked() {
		t.Errorf("%s.%s: packed, which the generator does not write", message, f.Name)
	}
	if strings.HasSuffix(f.Help, ".") {
		t.Errorf("%s.%s: help ends with a stop", message, f.Name)
	}
}

func TestEnumsAreCRIUs(t *testing.T) {
	_, want := theirs()
	for _, e := range schema.Enums() {
		d := want[e.Name]
		if d == nil {
			t.Errorf("%s: not in CRIU's schema, or twice in ours", e.Name)
			continue
		}
		delete(want, e.Name)
		if d.Values().Len() != len(e.Values) {
			t.Errorf("%s: %d values, CRIU has %d", e.Name, len(e.Values), d.Values().Len())
		}
		for _, v := range e.Values {
			if d := d.Values().ByName(protoreflect.Name(v.Name)); d == nil || int32(d.Number()) != v.Num {
				t.Errorf("%s.%s = %d: CRIU has %v", e.Name, v.Name, v.Num, d)
			}
		}
	}
	for name := range want {
		t.Errorf("%s: CRIU has it, the table has not", name)
	}
}

// TestGoNames guards the public names: two fields of one message must not meet in Go, and none may be a method's name.
func TestGoNames(t *testing.T) {
	for _, group := range schema.Groups() {
		for _, m := range group.Messages {
			taken := map[string]string{"Append": "a method", "Decode": "a method", "Schema": "a method", "Unknown": "the unknown fields"}
			for _, f := range m.Fields {
				name := schema.GoName(f.Name)
				if by := taken[name]; by != "" {
					t.Errorf("%s.%s: Go name %s is taken by %s", m.Name, f.Name, name, by)
				}
				taken[name] = f.Name
			}
		}
	}
	for name, want := range map[string]string{
		"sched_policy": "SchedPolicy", "mnt_id": "MntID", "vmas": "VMAs", "ti_x86": "TiX86", "fd": "FD", "EVENTFD": "EventFD", "X86_64": "X86_64",
	} {
		if got := schema.GoName(name); got != want {
			t.Errorf("GoName(%q) = %q, want %q", name, got, want)
		}
	}
}
