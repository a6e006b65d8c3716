package main

import (
	"bytes"
	"strings"

	"stasis.example/internal/rpctable"
)

// goField makes an exported Go name of a field's: images_dir_fd is ImagesDirFD.
func goField(name string) string {
	initialisms := map[string]string{"fd": "FD", "pid": "PID", "ps": "PS", "tcp": "TCP", "tls": "TLS", "lsm": "LSM",
		"cpu": "CPU", "sk": "Sk", "ns": "NS", "io": "IO", "pts": "PTS", "cacert": "CACert", "cacrl": "CACRL", "cn": "CN", "rwx": "RWX", "fs": "FS"}
	var b strings.Builder
	for part := range strings.SplitSeq(name, "_") {
		if up, ok := initialisms[part]; ok {
			b.WriteString(up)
			continue
		}
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

func messageOf(name string) rpctable.MessageType {
	for _, m := range rpctable.Messages() {
		if m.Name == name {
			return m
		}
	}
	panic("no message " + name + " in the table")
}

func enumOf(name string) rpctable.EnumType {
	for _, e := range rpctable.Enums() {
		if e.Name == name {
			return e
		}
	}
	panic("no enum " + name + " in the table")
}

// scalar is the Go type of one value of the field.
func scalar(f rpctable.Field) string {
	switch f.Kind {
	case rpctable.Bool:
		return "bool"
	case rpctable.Int32:
		return "int32"
	case rpctable.Uint32:
		return "uint32"
	case rpctable.String:
		return "string"
	case rpctable.Enum:
		return enumOf(f.Of).Go
	case rpctable.Message:
		return messageOf(f.Of).Go
	}
	panic("field " + f.Name + " has no kind")
}

func goType(f rpctable.Field) string {
	t := scalar(f)
	switch {
	case f.Card == rpctable.Repeated && f.Kind == rpctable.Message:
		return "[]*" + t
	case f.Card == rpctable.Repeated:
		return "[]" + t
	case f.Card == rpctable.Required:
		return t
	}
	return "*" + t
}

func enums(b *bytes.Buffer) {
	p(b, header+"package rpc\n\nimport \"strconv\"")
	for _, e := range rpctable.Enums() {
		p(b, "\n// %s is the enum %s: it %s.", e.Go, e.Name, e.Help)
		p(b, "type %s int32\n\nconst (", e.Go)
		prefix := strings.TrimSuffix(e.Go, "Type")
		for _, v := range e.Values {
			p(b, "\t%s%s %s = %d // %s: %s", prefix, v.Go, e.Go, v.Num, v.Name, v.Help)
		}
		p(b, ")\n\n// String is the value's name in rpc.proto, or its number.")
		p(b, "func (v %s) String() string {\n\tswitch v {", e.Go)
		for _, v := range e.Values {
			p(b, "\tcase %s%s:\n\t\treturn %q", prefix, v.Go, v.Name)
		}
		p(b, "\t}\n\treturn strconv.Itoa(int(v))\n}")
	}
}

func messages(b *bytes.Buffer) {
	p(b, header+"package rpc")
	for _, m := range rpctable.Messages() {
		p(b, "\n// %s is the message %s: it %s.", m.Go, m.Name, m.Help)
		p(b, "type %s struct {", m.Go)
		for _, f := range m.Fields {
			p(b, "\t%s %s // %d: %s%s", goField(f.Name), goType(f), f.Num, f.Help, since(f.Since))
		}
		p(b, "\n\t// Unknown holds the fields that this table does not know, as they came; they are sent again.")
		p(b, "\tUnknown []byte\n}")
	}
}

func since(v string) string {
	if v == "" {
		return ""
	}
	return " (CRIU " + v + ")"
}

func appendMethods(b *bytes.Buffer) {
	p(b, header+"package rpc\n\nimport \"google.golang.org/protobuf/encoding/protowire\"")
	for _, m := range rpctable.Messages() {
		p(b, "\n// Append appends the message's encoding to b, fields in the order of their numbers.")
		p(b, "func (m *%s) Append(b []byte) []byte {", m.Go)
		for _, f := range m.Fields {
			appendField(b, f)
		}
		p(b, "\treturn append(b, m.Unknown...)\n}")
		p(b, "\nfunc (m *%s) size() int {\n\tn := len(m.Unknown)", m.Go)
		for _, f := range m.Fields {
			sizeField(b, f)
		}
		p(b, "\treturn n\n}")
	}
}

// wire is the wire type of the field as protowire names it.
func wire(f rpctable.Field) string {
	if f.Kind == rpctable.String || f.Kind == rpctable.Message {
		return "protowire.BytesType"
	}
	return "protowire.VarintType"
}

func tagSize(f rpctable.Field) int {
	if f.Num < 16 {
		return 1
	}
	return 2
}

// each wraps body in the test or loop that the field's cardinality asks for; body uses v, the value.
func each(b *bytes.Buffer, f rpctable.Field, body func(v string)) {
	name := "m." + goField(f.Name)
	switch {
	case f.Card == rpctable.Repeated:
		p(b, "\tfor _, v := range %s {", name)
		body("v")
		p(b, "\t}")
	case f.Card == rpctable.Required:
		body(name)
	case f.Kind == rpctable.Message:
		p(b, "\tif v := %s; v != nil {", name)
		body("v")
		p(b, "\t}")
	default:
		p(b, "\tif v := %s; v != nil {", name)
		body("*v")
		p(b, "\t}")
	}
}

func varint(f rpctable.Field, v string) string {
	switch f.Kind {
	case rpctable.Bool:
		return "protowire.EncodeBool(" + v + ")"
	case rpctable.Uint32:
		return "uint64(" + v + ")"
	}
	return "uint64(int64(" + v + "))" // a negative int32 or enum is sign-extended: ten bytes
}

func appendField(b *bytes.Buffer, f rpctable.Field) {
	each(b, f, func(v string) {
		p(b, "\tb = protowire.AppendTag(b, %d, %s)", f.Num, wire(f))
		switch f.Kind {
		case rpctable.String:
			p(b, "\tb = protowire.AppendString(b, %s)", v)
		case rpctable.Message:
			p(b, "\tb = protowire.AppendVarint(b, uint64(%s.size()))\n\tb = %s.Append(b)", v, v)
		default:
			p(b, "\tb = protowire.AppendVarint(b, %s)", varint(f, v))
		}
	})
}

func sizeField(b *bytes.Buffer, f rpctable.Field) {
	each(b, f, func(v string) {
		switch f.Kind {
		case rpctable.String:
			p(b, "\tn += %d + protowire.SizeBytes(len(%s))", tagSize(f), v)
		case rpctable.Message:
			p(b, "\tn += %d + protowire.SizeBytes(%s.size())", tagSize(f), v)
		default:
			p(b, "\tn += %d + protowire.SizeVarint(%s)", tagSize(f), varint(f, v))
		}
	})
}

func decodeMethods(b *bytes.Buffer) {
	p(b, header+"package rpc")
	for _, m := range rpctable.Messages() {
		p(b, "\n// Decode reads an encoding into m, over what m holds. The message is checked as a whole: a required field that is")
		p(b, "// missing, a wrong wire type or a number that does not fit are errors.")
		p(b, "func (m *%s) Decode(b []byte) error {\n\td := decoder{message: %q, rest: b}", m.Go, m.Name)
		required := 0
		for _, f := range m.Fields {
			if f.Card == rpctable.Required && f.Default == "" {
				required++
			}
		}
		for _, f := range m.Fields {
			if f.Card == rpctable.Required && f.Default != "" {
				p(b, "\tm.%s = %s", goField(f.Name), f.Default)
			}
		}
		p(b, "\tfor d.next() {\n\t\tswitch d.num {")
		bit := 0
		for _, f := range m.Fields {
			p(b, "\t\tcase %d:", f.Num)
			decodeField(b, f)
			if f.Card == rpctable.Required && f.Default == "" {
				p(b, "\t\t\td.seen |= 1 << %d", bit)
				bit++
			}
		}
		p(b, "\t\tdefault:\n\t\t\tm.Unknown = append(m.Unknown, d.skip()...)\n\t\t}\n\t}")
		var names []string
		for _, f := range m.Fields {
			if f.Card == rpctable.Required && f.Default == "" {
				names = append(names, `"`+f.Name+`"`)
			}
		}
		p(b, "\treturn d.done(%s)\n}", strings.Join(names, ", "))
	}
}

func decodeField(b *bytes.Buffer, f rpctable.Field) {
	name := "m." + goField(f.Name)
	read := map[rpctable.Kind]string{
		rpctable.Bool:   "d.bool()",
		rpctable.Int32:  "d.int32()",
		rpctable.Uint32: "d.uint32()",
		rpctable.String: "d.string()",
	}[f.Kind]
	if f.Kind == rpctable.Enum {
		read = scalar(f) + "(d.int32())"
	}
	switch {
	case f.Kind == rpctable.Message && f.Card == rpctable.Repeated:
		p(b, "\t\t\tv := new(%s)\n\t\t\td.sub(v)\n\t\t\t%s = append(%s, v)", scalar(f), name, name)
	case f.Kind == rpctable.Message:
		p(b, "\t\t\tif %s == nil {\n\t\t\t\t%s = new(%s)\n\t\t\t}\n\t\t\td.sub(%s)", name, name, scalar(f), name)
	case f.Card == rpctable.Repeated:
		p(b, "\t\t\t%s = append(%s, %s)", name, name, read)
	case f.Card == rpctable.Required:
		p(b, "\t\t\t%s = %s", name, read)
	default:
		p(b, "\t\t\t%s = new(%s)", name, read)
	}
}
