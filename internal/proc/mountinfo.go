package proc

import (
	"bytes"
	"io"
)

// A Mount is a line of mountinfo.
type Mount struct {
	ID       int
	Parent   int
	Major    uint32
	Minor    uint32
	Root     string   // the directory of the file system that is mounted; "/.." parts or "//deleted" for one that is gone
	Point    string   // where, as seen from the process's root
	Options  string   // of the mount
	Shared   int      // peer group, 0 for none
	Master   int      // peer group that it is a slave of, 0 for none
	From     int      // propagate_from: the nearest dominant group under the root, 0 for none
	Unbind   bool     // unbindable
	Tags     []string // optional fields that this type has no field for
	FSType   string
	Source   string // may be empty
	SBOption string // of the super block
}

// ParseMountInfo parses mountinfo.
func ParseMountInfo(r io.Reader) ([]Mount, error) {
	l := newLines(r)
	var all []Mount
	for l.next() {
		m, what := parseMount(l.text)
		if what != "" {
			return nil, l.bad("%s", what)
		}
		all = append(all, m)
	}
	return all, l.failed()
}

// parseMount parses a line; what says what is wrong with it. There is exactly one blank between fields, so that an empty
// source can be told.
func parseMount(b []byte) (m Mount, what string) {
	fields := bytes.Split(b, []byte(" "))
	if len(fields) < 10 {
		return m, "too few fields"
	}
	major, minor, ok := bytes.Cut(fields[2], []byte(":"))
	if !number(fields[0], &m.ID) || !number(fields[1], &m.Parent) || !ok || !number(major, &m.Major) || !number(minor, &m.Minor) {
		return m, "no ids"
	}
	m.Root, m.Point, m.Options = unescape(fields[3]), unescape(fields[4]), string(fields[5])
	fields = fields[6:]
	for len(fields) > 0 && string(fields[0]) != "-" {
		if !m.tag(fields[0]) {
			return m, "bad optional field"
		}
		fields = fields[1:]
	}
	if len(fields) != 4 {
		return m, "no file system type, source and options"
	}
	m.FSType, m.Source, m.SBOption = unescape(fields[1]), unescape(fields[2]), unescape(fields[3])
	return m, ""
}

func (m *Mount) tag(tag []byte) bool {
	key, value, _ := bytes.Cut(tag, []byte(":"))
	switch string(key) {
	case "shared":
		return number(value, &m.Shared)
	case "master":
		return number(value, &m.Master)
	case "propagate_from":
		return number(value, &m.From)
	case "unbindable":
		m.Unbind = true
	default:
		m.Tags = append(m.Tags, string(tag))
	}
	return true
}
