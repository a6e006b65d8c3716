package cli

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// writeJSON writes an answer and a line feed as encoding/json would, with HTML as it is. Answers are structs of structs, maps, slices,
// pointers, text, numbers and truth values, and nothing else. Package json would be a twentieth of this program's memory in every
// dump and restore, none of which need it.
func writeJSON(w io.Writer, v any) error {
	_, err := w.Write(append(appendJSON(nil, reflect.ValueOf(v)), '\n'))
	return err
}

func appendJSON(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...)
		}
		return appendJSON(b, v.Elem())
	case reflect.Struct:
		return appendStruct(b, v)
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Slice:
		return appendSlice(b, v)
	case reflect.String:
		return appendText(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case reflect.Int, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10)
	case reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10)
	case reflect.Float64:
		return appendFloat(b, v.Float())
	}
	panic(fmt.Sprintf("an answer has a %v in it", v.Type()))
}

func appendStruct(b []byte, v reflect.Value) []byte {
	b = append(b, '{')
	first := true
	for i := range v.NumField() {
		tag, ok := v.Type().Field(i).Tag.Lookup("json")
		if !ok {
			panic(fmt.Sprintf("%v.%s has no name", v.Type(), v.Type().Field(i).Name))
		}
		name, option, _ := strings.Cut(tag, ",")
		field := v.Field(i)
		if option == "omitempty" && empty(field) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendText(b, name), ':')
		b = appendJSON(b, field)
	}
	return append(b, '}')
}

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func appendMap(b []byte, v reflect.Value) []byte {
	if v.IsNil() {
		return append(b, "null"...)
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, key.String()), ':')
		b = appendJSON(b, v.MapIndex(key))
	}
	return append(b, '}')
}

func appendSlice(b []byte, v reflect.Value) []byte {
	if v.IsNil() {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, v.Index(i))
	}
	return append(b, ']')
}

// appendFloat writes a number as JavaScript does: with an exponent only if it is very small or very large.
func appendFloat(b []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	text := strconv.FormatFloat(f, format, -1, 64)
	if n := len(text); format == 'e' && n >= 4 && text[n-4:n-1] == "e-0" { // e-09 is e-9
		text = text[:n-2] + text[n-1:]
	}
	return append(b, text...)
}

func appendText(b []byte, s string) []byte {
	const short = "\b\f\n\r\t"
	const letters = "bfnrt"
	b = append(b, '"')
	for i, r := range s {
		switch at := strings.IndexRune(short, r); {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case at >= 0:
			b = append(b, '\\', letters[at])
		case r < ' ' || r == '\u2028' || r == '\u2029': // the last two end lines in JavaScript
			b = fmt.Appendf(b, `\u%04x`, r)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
			b = append(b, `\ufffd`...)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
