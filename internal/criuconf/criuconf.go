// Package criuconf reads and writes CRIU's configuration files.
//
// A file has one option per line, written as on the command line but without its dashes, and its value behind white
// space:
//
//	# what every dump here needs
//	tcp-established
//	work-dir "/var/lib/my \"work\" directory"
//	no-restore-sibling   # as --no-restore-sibling
//
// A word that begins with # ends the line. A word that begins with a double quote goes to the next double quote that
// has no backslash before it, blanks included; \" stands for a quote, and a backslash before anything else for
// itself. A quote that is not closed on its line, or that stands in the middle of a word, is an ordinary letter.
//
// The rules are those of CRIU's own reader (criu(8), "Configuration file syntax", and its behaviour where the manual
// is silent). Unlike CRIU the package refuses NUL bytes, and files and lines beyond a bound, instead of cutting them.
package criuconf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of a file; real ones have a few dozen short lines.
const (
	MaxSize = 1 << 20  // bytes of a file
	MaxLine = 64 << 10 // bytes of a line
)

// Statement is a line that says something.
type Statement struct {
	Line  int      // counted from 1
	Words []string // the option's name, possibly with =VALUE, and what follows it; never empty
}

// Args is the statement as words of a command line.
func (s Statement) Args() []string {
	args := append([]string(nil), s.Words...)
	args[0] = "--" + args[0]
	return args
}

// SyntaxError is a line that cannot be read.
type SyntaxError struct {
	Line int
	Err  error
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *SyntaxError) Unwrap() error { return e.Err }

var (
	errNUL     = errors.New("holds a NUL byte: this is no text file")
	errLong    = fmt.Errorf("is longer than %d bytes", MaxLine)
	errTooMuch = fmt.Errorf("the file is larger than %d bytes", MaxSize)
)

// Read reads a configuration file. Its errors are [*SyntaxError]s and those of r.
func Read(r io.Reader) ([]Statement, error) {
	limited := &io.LimitedReader{R: r, N: MaxSize + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), MaxLine)
	var statements []Statement
	n := 0
	for lines.Scan() {
		n++
		line := lines.Bytes()
		if bytes.IndexByte(line, 0) >= 0 {
			return nil, &SyntaxError{n, errNUL}
		}
		if words := split(string(line)); len(words) > 0 {
			statements = append(statements, Statement{Line: n, Words: words})
		}
	}
	if limited.N == 0 {
		return nil, &SyntaxError{n, errTooMuch}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, &SyntaxError{n + 1, errLong}
	} else if err != nil {
		return nil, err
	}
	return statements, nil
}

// split splits a line into its words.
func split(line string) []string {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t\r\v\f")
		if line == "" || line[0] == '#' {
			return words
		}
		if word, rest, ok := quoted(line); ok {
			words, line = append(words, word), rest
			continue
		}
		end := strings.IndexAny(line, " \t\r")
		if end < 0 {
			end = len(line)
		}
		words, line = append(words, line[:end]), line[end:]
	}
}

// quoted reads a word in quotes from the beginning of a line.
func quoted(line string) (word, rest string, ok bool) {
	if line[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch {
		case line[i] == '"':
			return b.String(), line[i+1:], true
		case line[i] == '\\' && i+1 < len(line) && line[i+1] == '"':
			i++
		}
		b.WriteByte(line[i])
	}
	return "", "", false
}

// Format writes an option, with its value where there is one, as a line that Read and CRIU read back. It refuses what
// the format cannot say: a name that is no single word, and a value with a line break or NUL byte, or with a
// backslash at its end or before a quote.
//
// A value is put into quotes only if it needs them: CRIU 4.2.1 refuses many a line with a quoted blank, such as the one
// that its manual shows as an example (see [NeedsQuotes]).
func Format(name string, value ...string) (string, error) {
	if name == "" || strings.ContainsAny(name, " \t\r\n\v\f\"#\x00") {
		return "", fmt.Errorf("%q cannot be the name of an option in a configuration file", name)
	}
	line := name
	for _, v := range value {
		switch {
		case strings.ContainsAny(v, "\n\x00"):
			return "", fmt.Errorf("the value %q of %s has a line break or NUL byte, which a configuration file cannot hold", v, name)
		case strings.HasSuffix(v, `\`) || strings.Contains(v, `\"`):
			return "", fmt.Errorf("the value %q of %s has a backslash where a configuration file takes it for an escape", v, name)
		}
		if !NeedsQuotes(v) {
			line += " " + v
			continue
		}
		line += ` "` + strings.ReplaceAll(v, `"`, `\"`) + `"`
	}
	return line + "\n", nil
}

// NeedsQuotes reports whether a value has to stand in quotes. CRIU 4.2.1 reads `root "/tmp a"` and refuses
// `root "/tmp/x/yyy a"`: what is to be read by it is better named in another way.
func NeedsQuotes(value string) bool {
	return value == "" || value[0] == '#' || strings.ContainsAny(value, " \t\r\v\f\"")
}
