package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// A SyntaxError says what a parser did not understand.
type SyntaxError struct {
	Line int    // counted from 1; 0 where the file has no lines
	Text string // the line, or what there is instead
	What string
}

func (e *SyntaxError) Error() string {
	text := e.Text
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	if e.Line == 0 {
		return fmt.Sprintf("%s: %q", e.What, text)
	}
	return fmt.Sprintf("line %d: %s: %q", e.Line, e.What, text)
}

// maxLine bounds one line. The longest that the kernel makes are the supplementary groups, 65,536 of them.
const maxLine = 16 << 20

// lines reads a file line by line. Text is valid until the next call of next.
type lines struct {
	r    *bufio.Reader
	long []byte // a line that is longer than the reader's buffer
	text []byte
	n    int
	err  error
}

// bufferSize is that of a buffer to read with. A larger one would gain nothing: the kernel gives a page of most files at a time.
const bufferSize = 4 << 10

// newLines reads lines, with the reader's own buffer if it has one.
func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, bufferSize)} }

// next moves to the next line and reports whether there is one; err says why not. The kernel ends every line, so one that
// is not ended is a file that was cut off.
func (l *lines) next() bool {
	if l.err != nil {
		return false
	}
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		for errors.Is(err, bufio.ErrBufferFull) && len(l.long) < maxLine {
			l.long = append(l.long, line...)
			line, err = l.r.ReadSlice('\n')
		}
		l.long = append(l.long, line...)
		line = l.long
	}
	l.text = line
	if err == nil {
		l.n++
		l.text = line[:len(line)-1]
		return true
	}
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		l.n++
		l.err = l.bad("line of more than 16 MiB")
	case errors.Is(err, io.EOF) && len(line) == 0:
		l.err = io.EOF
	case errors.Is(err, io.EOF):
		l.n++
		l.err = l.bad("line is cut off")
	default:
		l.err = err
	}
	return false
}

// failed returns the error that ended the lines, or nil at the end of the file.
func (l *lines) failed() error {
	if errors.Is(l.err, io.EOF) {
		return nil
	}
	return l.err
}

func (l *lines) bad(format string, args ...any) error {
	return &SyntaxError{Line: l.n, Text: string(l.text), What: fmt.Sprintf(format, args...)}
}

// digits parses a whole number in base 8, 10 or 16, as the kernel prints it: no sign, no prefix, no blanks.
func digits(b []byte, base uint64) (uint64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	var v uint64
	for _, c := range b {
		d := uint64(c - '0')
		switch {
		case c >= 'a' && c <= 'f':
			d = uint64(c-'a') + 10
		case c < '0' || c > '9':
			return 0, false
		}
		if d >= base || v > (math.MaxUint64-d)/base {
			return 0, false
		}
		v = v*base + d
	}
	return v, true
}

// integer is one that a field can have.
type integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// number parses a decimal number into v, with a sign where v has one. It reports false for what does not fit.
func number[T integer](b []byte, v *T) bool {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	u, ok := digits(b, 10)
	if !ok {
		return false
	}
	if negative {
		*v = T(-int64(u))
		return u <= 1<<63 && int64(*v) == -int64(u) && (*v <= 0)
	}
	*v = T(u)
	return uint64(*v) == u && *v >= 0
}

// hex parses a hexadecimal number into v.
func hex[T integer](b []byte, v *T) bool { return unsigned(b, 16, v) }

// octal parses an octal number into v.
func octal[T integer](b []byte, v *T) bool { return unsigned(b, 8, v) }

func unsigned[T integer](b []byte, base uint64, v *T) bool {
	u, ok := digits(b, base)
	*v = T(u)
	return ok && uint64(*v) == u && *v >= 0
}

// word cuts the first word of b and the blanks after it.
func word(b []byte) (first, rest []byte) {
	b = bytes.TrimLeft(b, " \t")
	i := bytes.IndexAny(b, " \t")
	if i < 0 {
		return b, nil
	}
	return b[:i], bytes.TrimLeft(b[i:], " \t")
}

// unescape undoes the octal escapes of the kernel's seq_file: \040 for a blank. A backslash that begins none stays: the
// caller knows whether the kernel escapes backslashes in the file at hand.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if c, ok := digits(b[i+1:i+4], 8); ok && c < 256 {
				out = append(out, byte(c))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

// cutKey splits "Key: value" and trims the value.
func cutKey(b []byte) (key, value []byte, ok bool) {
	key, value, ok = bytes.Cut(b, []byte(":"))
	return key, bytes.TrimSpace(value), ok
}

// A Field is a line "Key: value" that the package does not know.
type Field struct {
	Key, Value string
}
