// Gen writes the parts of libcriu that repeat the table of the RPC: the field numbers and defaults (fields.h), the
// setters and everything that only passes the global options object (setters.c), the declarations in criu.h, and the
// list of exported symbols (libcriu.map).
//
//	go generate ./libcriu/gen
//	go run ./libcriu/gen -C libcriu -check
//
// With -check nothing is written; the exit status says whether the files are up to date.
package main

//go:generate go run . -C ..

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"

	"stasis.example/internal/rpctable"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	check := flag.Bool("check", false, "only say whether the files are up to date")
	dir := flag.String("C", ".", "the `directory` of the C library")
	flag.Parse()
	if err := os.Chdir(*dir); err != nil {
		log.Fatal(err)
	}

	header, err := os.ReadFile("criu.h")
	if err != nil {
		log.Fatal(err)
	}
	files, err := generate(header)
	if err != nil {
		log.Fatal(err)
	}
	stale := false
	for name, want := range files {
		have, err := os.ReadFile(name)
		switch {
		case err == nil && bytes.Equal(have, want):
		case *check:
			log.Printf("%s is stale: run go generate ./libcriu/gen", name)
			stale = true
		default:
			if err := os.WriteFile(name, want, 0o644); err != nil {
				log.Fatal(err)
			}
		}
	}
	if stale {
		os.Exit(1)
	}
}

// generate returns all generated files by name; criu.h is what it was, with its marked parts written anew.
func generate(header []byte) (map[string][]byte, error) {
	options, err := optionSetters()
	if err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name string
		text string
	}{
		{"service", declarations(actions(), func(f function) bool { return strings.Contains(f.name, "service") })},
		{"options", declarations(functionsOf(options), isUpstream)},
		{"actions", declarations(actions(), func(f function) bool {
			return isUpstream(f) && !strings.Contains(f.name, "service")
		})},
		{"extension options", declarations(functionsOf(options), isExtension)},
		{"extensions", declarations(actions(), isExtension)},
	} {
		if header, err = replacePart(header, part.name, part.text); err != nil {
			return nil, err
		}
	}
	return map[string][]byte{
		"criu.h":      header,
		"fields.h":    fieldsHeader(),
		"setters.c":   settersSource(options),
		"libcriu.map": symbolMap(options),
	}, nil
}

func isExtension(f function) bool { return f.extension }
func isUpstream(f function) bool  { return !f.extension }

// setter is a row of the table with the C function that sets it.
type setter struct {
	function
	row  rpctable.Field
	body string // of the _local form; "" where it is written by hand
}

func functionsOf(setters []setter) []function {
	fns := make([]function, len(setters))
	for i, s := range setters {
		fns[i] = s.function
	}
	return fns
}

// optionSetters returns the setters of all options, in the order of their fields.
func optionSetters() ([]setter, error) {
	custom := optionFunctions()
	var setters []setter
	for _, row := range rpctable.Options() {
		if row.CForm == rpctable.CNone {
			continue
		}
		s := setter{row: row}
		if row.CForm == rpctable.CCustom {
			f, ok := custom[row.C]
			if !ok {
				return nil, fmt.Errorf("the table says that %s is written by hand; functions.go does not have it", row.C)
			}
			delete(custom, row.C)
			s.function = f
		} else {
			s.function, s.body = plainSetter(row)
		}
		s.extension = row.CSince == ""
		setters = append(setters, s)
	}
	for name := range custom {
		return nil, fmt.Errorf("functions.go has %s, which is no CCustom row of the table", name)
	}
	return setters, nil
}

// paramTypes are where the API departs from what the wire type says.
func paramType(row rpctable.Field) string {
	switch row.Name {
	case "empty_ns":
		return "int %s"
	}
	switch row.Kind {
	case rpctable.Bool:
		return "bool %s"
	case rpctable.Int32:
		return "int %s"
	case rpctable.Uint32:
		return "unsigned int %s"
	case rpctable.String:
		return "const char *%s"
	case rpctable.Enum:
		of := row.Of
		return "enum " + of + " %s"
	}
	panic("a message has no plain setter: " + row.Name)
}

func plainSetter(row rpctable.Field) (function, string) {
	field := fieldConst(row)
	value := row.Name
	f := function{name: row.C, ret: "void", params: []param{{paramType(row), value}}, doc: sentence(row)}

	var put string
	switch row.Kind {
	case rpctable.String:
		f.ret = "int"
		appends := row.Card == rpctable.Repeated
		if row.Name == "irmap_scan_paths" { // the one setter that has always noticed
			return f, fmt.Sprintf("\treturn opts ? opt_string(opts, %s, %s, %t) : -1;\n", field, value, appends)
		}
		return f, fmt.Sprintf("\treturn opt_string(opts, %s, %s, %t);\n", field, value, appends)
	case rpctable.Bool:
		put = fmt.Sprintf("\topt_varint(opts, %s, %s);\n", field, value)
	case rpctable.Uint32:
		put = fmt.Sprintf("\topt_varint(opts, %s, (uint32_t)%s);\n", field, value)
	default: // negative numbers are sign-extended to 64 bits
		put = fmt.Sprintf("\topt_varint(opts, %s, (uint64_t)(int64_t)(int32_t)%s);\n", field, value)
	}
	if row.CForm != rpctable.CChecked {
		return f, put
	}

	f.ret = "int"
	refuse, bad := "-EINVAL", ""
	if row.Kind == rpctable.Enum {
		refuse = "-1"
		var allowed []string
		for _, v := range enumValues(row.Of) {
			allowed = append(allowed, fmt.Sprintf("%s != %d", cast(value), v))
		}
		bad = strings.Join(allowed, " && ")
	} else {
		bad = fmt.Sprintf("%s > %d", cast(value), row.CMax)
		f.doc += fmt.Sprintf(" -EINVAL above %d.", row.CMax)
	}
	if row.Kind == rpctable.Enum {
		f.doc += " -1 for another value."
	}
	return f, fmt.Sprintf("\tif (!opts)\n\t\treturn -EINVAL;\n\tif (%s)\n\t\treturn %s;\n%s\treturn 0;\n", bad, refuse, put)
}

func cast(value string) string { return "(unsigned int)" + value }

func enumValues(name string) []int32 {
	for _, e := range rpctable.Enums() {
		if e.Name == name {
			var values []int32
			for _, v := range e.Values {
				values = append(values, v.Num)
			}
			return values
		}
	}
	panic("no enum " + name)
}

// sentence makes the comment of a setter from the row's help.
func sentence(row rpctable.Field) string {
	s := strings.ToUpper(row.Help[:1]) + row.Help[1:] + "."
	if row.Default != "" && row.Card != rpctable.Required {
		s += " CRIU's default is " + row.Default + "."
	}
	return s
}

func fieldConst(row rpctable.Field) string { return "FIELD_" + strings.ToUpper(row.Name) }

const generated = "/* SPDX-License-Identifier: Apache-2.0 */\n" +
	"/* Code generated by gen from internal/rpctable; DO NOT EDIT. */\n"

func fieldsHeader() []byte {
	var b bytes.Buffer
	b.WriteString(generated)
	b.WriteString("#ifndef STASIS_LIBCRIU_FIELDS_H\n#define STASIS_LIBCRIU_FIELDS_H\n\n" +
		"#include <stdint.h>\n\n/* The fields of criu_opts by their numbers. */\nenum field_number {\n")
	last := int32(0)
	for _, row := range rpctable.Options() {
		fmt.Fprintf(&b, "\t%s = %d,\n", fieldConst(row), row.Num)
		last = max(last, row.Num)
	}
	fmt.Fprintf(&b, "};\n\n#define FIELD_MAX %d\n\n", last)
	b.WriteString("void opt_varint(criu_opts *o, unsigned num, uint64_t v);\n\n" +
		"/* Required fields, which are sent even when nobody sets them. */\nstatic inline void opt_defaults(criu_opts *o)\n{\n")
	for _, row := range rpctable.Options() {
		if row.Card == rpctable.Required {
			fmt.Fprintf(&b, "\topt_varint(o, %s, (uint64_t)(int64_t)%s);\n", fieldConst(row), row.Default)
		}
	}
	b.WriteString("}\n\n#endif\n")
	return b.Bytes()
}

func settersSource(setters []setter) []byte {
	var b bytes.Buffer
	b.WriteString(generated)
	b.WriteString("\n#include <errno.h>\n\n#include \"internal.h\"\n")
	for _, s := range setters {
		if s.body != "" {
			fmt.Fprintf(&b, "\nEXPORT %s\n{\n%s}\n", s.prototype(true), s.body)
		}
	}
	for _, f := range append(functionsOf(setters), actions()...) {
		call := fmt.Sprintf("criu_local_%s(%s)", f.name, strings.Join(f.arguments(), ", "))
		if f.ret != "void" {
			call = "return " + call
		}
		fmt.Fprintf(&b, "\nEXPORT %s\n{\n\t%s;\n}\n", f.prototype(false), call)
	}
	return b.Bytes()
}

func (f function) arguments() []string {
	args := []string{"criu_global_opts"}
	for _, p := range f.params {
		args = append(args, p.name)
	}
	return args
}

func (f function) prototype(local bool) string {
	var params []string
	name := "criu_" + f.name
	if local {
		name = "criu_local_" + f.name
		params = append(params, "criu_opts *opts")
	}
	for _, p := range f.params {
		params = append(params, p.declare())
	}
	if len(params) == 0 {
		params = []string{"void"}
	}
	space := " "
	if strings.HasSuffix(f.ret, "*") {
		space = ""
	}
	return fmt.Sprintf("%s%s%s(%s)", f.ret, space, name, strings.Join(params, ", "))
}

func sprintfName(ctype, name string) string { return strings.Replace(ctype, "%s", name, 1) }

func declarations(fns []function, want func(function) bool) string {
	var b strings.Builder
	for _, f := range fns {
		if !want(f) {
			continue
		}
		fmt.Fprintf(&b, "\n%s%s;\n%s;\n", comment(f.doc), f.prototype(false), f.prototype(true))
	}
	return b.String()
}

// comment makes a C comment of a text.
func comment(text string) string {
	lines := wrap(text, 112)
	if len(lines) == 1 {
		return "/* " + text + " */\n"
	}
	return "/*\n * " + strings.Join(lines, "\n * ") + "\n */\n"
}

// wrap breaks a text into lines of at most width characters.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// replacePart writes the text between the two lines that mark a generated part of criu.h.
func replacePart(header []byte, name, text string) ([]byte, error) {
	from := fmt.Sprintf("/* generated: %s */\n", name)
	to := fmt.Sprintf("\n/* end of generated: %s */\n", name)
	before, rest, ok := bytes.Cut(header, []byte(from))
	if ok {
		var after []byte
		if _, after, ok = bytes.Cut(rest, []byte(to)); ok {
			return slices.Concat(before, []byte(from+text+to), after), nil
		}
	}
	return nil, fmt.Errorf("criu.h lacks the marks of its part %q", name)
}

func symbolMap(setters []setter) []byte {
	names := plainNames()
	for _, f := range append(functionsOf(setters), actions()...) {
		names = append(names, "criu_"+f.name, "criu_local_"+f.name)
	}
	slices.SortFunc(names, cmp.Compare)
	var b bytes.Buffer
	b.WriteString(generated)
	b.WriteString("{\nglobal:\n")
	for _, name := range names {
		fmt.Fprintf(&b, "\t%s;\n", name)
	}
	b.WriteString("local:\n\t*;\n};\n")
	return b.Bytes()
}
