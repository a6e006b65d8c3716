package proc

import (
	"bytes"
	"io"
	"slices"
)

// Perm is what a mapping allows.
type Perm uint8

// The letters of a mapping's permissions.
const (
	PermRead Perm = 1 << iota
	PermWrite
	PermExec
	PermShared // s; without it p, private
)

// String returns the kernel's form, "rw-p".
func (p Perm) String() string {
	b := []byte("---p")
	for i, c := range []byte("rwx") {
		if p&(1<<i) != 0 {
			b[i] = c
		}
	}
	if p&PermShared != 0 {
		b[3] = 's'
	}
	return string(b)
}

// A Mapping is a line of maps.
type Mapping struct {
	Start, End uint64
	Perm       Perm
	Offset     uint64 // in bytes
	Major      uint32
	Minor      uint32
	Inode      uint64

	// Path is the file's name as seen from the reader's root, or a name in brackets: [heap], [stack], [vdso], [vvar],
	// [anon:name] and so on. It is not to be trusted with finding the file again: the kernel escapes a line feed as \012 and
	// does not escape a backslash, so that the two cannot be told apart (Path has the line feed); and the " (deleted)" of
	// a file without a name may be part of one. The link in map_files, or the inode, tells for sure.
	Path string
}

// ParseMaps parses maps. Mappings ascend; a file where they do not is an error.
func ParseMaps(r io.Reader) ([]Mapping, error) {
	l := newLines(r)
	const usual = 16 // a small program has no more
	all := make([]Mapping, 0, usual)
	for l.next() {
		all = slices.Grow(all, 1)
		all = all[:len(all)+1]
		m := &all[len(all)-1]
		*m = Mapping{}
		if len(all) > 1 {
			m.Path = all[len(all)-2].Path // shares the text if it is the same
		}
		if err := m.parse(l); err != nil {
			return nil, err
		}
		if len(all) > 1 && m.Start < all[len(all)-2].End {
			return nil, l.bad("mapping begins before the end of the one before")
		}
	}
	if err := l.failed(); err != nil {
		return nil, err
	}
	return all, nil
}

// parse parses the present line. The path that m has is kept, not allocated again, where the line has the same.
func (m *Mapping) parse(l *lines) error {
	text := l.text
	next := func(sep byte) (part []byte) {
		i := bytes.IndexByte(text, sep)
		if i < 0 {
			part, text = text, nil
			return part
		}
		part, text = text[:i], text[i+1:]
		return part
	}
	if !hex(next('-'), &m.Start) || !hex(next(' '), &m.End) || m.Start >= m.End {
		return l.bad("no address range")
	}
	perms := next(' ')
	if len(perms) != 4 {
		return l.bad("no permissions")
	}
	m.Perm = 0
	for i, c := range perms {
		switch {
		case c == "rwxs"[i]:
			m.Perm |= 1 << i
		case c != "---p"[i]:
			return l.bad("permission %q", c)
		}
	}
	if !hex(next(' '), &m.Offset) {
		return l.bad("no offset")
	}
	if !hex(next(':'), &m.Major) || !hex(next(' '), &m.Minor) {
		return l.bad("no device")
	}
	if !number(next(' '), &m.Inode) {
		return l.bad("no inode")
	}
	// The path is padded to a column; none begins with a blank.
	path := bytes.TrimLeft(text, " ")
	if m.Path != string(path) {
		m.Path = unescapeLF(path)
	}
	return nil
}

// unescapeLF undoes the one escape of maps.
func unescapeLF(b []byte) string {
	return string(bytes.ReplaceAll(b, []byte(`\012`), []byte("\n")))
}
