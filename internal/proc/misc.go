package proc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// A Namespace is the text of a link in ns/: "pid:[4026531836]".
type Namespace struct {
	Kind  string // "pid", also of the link pid_for_children
	Inode uint64
}

// String returns the kernel's form.
func (n Namespace) String() string { return fmt.Sprintf("%s:[%d]", n.Kind, n.Inode) }

// ParseNamespace parses the text of a link in ns/.
func ParseNamespace(text string) (n Namespace, err error) {
	kind, rest, ok1 := strings.Cut(text, ":[")
	inode, ok2 := strings.CutSuffix(rest, "]")
	n.Kind = kind
	if !ok1 || !ok2 || kind == "" || !number([]byte(inode), &n.Inode) {
		return n, &SyntaxError{Text: text, What: "no namespace"}
	}
	return n, nil
}

// A Cgroup is a line of cgroup: the place of a task in one hierarchy.
type Cgroup struct {
	ID          int      // of the hierarchy; 0 for version 2
	Controllers []string // "cpu", "name=systemd"; nil for version 2
	Path        string   // as seen from the reader's cgroup namespace, so it may begin with "/.."
}

// ParseCgroup parses cgroup.
func ParseCgroup(r io.Reader) ([]Cgroup, error) {
	l := newLines(r)
	var all []Cgroup
	for l.next() {
		id, rest, ok1 := bytes.Cut(l.text, []byte(":"))
		controllers, path, ok2 := bytes.Cut(rest, []byte(":"))
		var c Cgroup
		if !ok1 || !ok2 || !number(id, &c.ID) || len(path) == 0 || path[0] != '/' {
			return nil, l.bad("no hierarchy")
		}
		if len(controllers) > 0 {
			c.Controllers = strings.Split(string(controllers), ",")
		}
		c.Path = string(path)
		all = append(all, c)
	}
	return all, l.failed()
}

// An IDMap is a line of uid_map or gid_map.
type IDMap struct {
	Inside, Outside, Count uint32
}

// ParseIDMap parses uid_map or gid_map.
func ParseIDMap(r io.Reader) ([]IDMap, error) {
	l := newLines(r)
	var all []IDMap
	for l.next() {
		var n []uint32
		if !list(l.text, &n) || len(n) != 3 {
			return nil, l.bad("not three numbers")
		}
		all = append(all, IDMap{n[0], n[1], n[2]})
	}
	return all, l.failed()
}

// TimeOffsets are what a time namespace adds to the clocks of the machine, see time_namespaces(7).
type TimeOffsets struct {
	Monotonic, Boottime time.Duration
}

// ParseTimeOffsets parses timens_offsets.
func ParseTimeOffsets(r io.Reader) (TimeOffsets, error) {
	l := newLines(r)
	var o TimeOffsets
	for l.next() {
		clock, rest, _ := bytes.Cut(l.text, []byte{' '})
		var n []int64
		if !list(rest, &n) || len(n) != 2 || n[1] < 0 || n[1] >= int64(time.Second) || n[0] >= math.MaxInt64/int64(time.Second) || n[0] <= math.MinInt64/int64(time.Second) {
			return o, l.bad("not a clock, seconds and nanoseconds")
		}
		switch offset := time.Duration(n[0])*time.Second + time.Duration(n[1]); string(clock) {
		case "monotonic":
			o.Monotonic = offset
		case "boottime":
			o.Boottime = offset
		}
	}
	return o, l.failed()
}

// parseChildren parses children: pids with a blank after each, no line feed.
func parseChildren(b []byte) ([]int, error) {
	var pids []int
	if len(b) > 0 && b[len(b)-1] != ' ' {
		return nil, &SyntaxError{Text: string(b), What: "cut off"}
	}
	if !list(b, &pids) {
		return nil, &SyntaxError{Text: string(b), What: "not all are pids"}
	}
	return pids, nil
}

// ParseAuxv parses auxv: little-endian words of 4 or 8 bytes, up to the AT_NULL pair, which is not returned. The file has
// nothing in it for a process without memory.
func ParseAuxv(b []byte, wordSize int) ([]uint64, error) {
	if wordSize != 4 && wordSize != 8 {
		return nil, &SyntaxError{Text: fmt.Sprint(wordSize), What: "no size of a word"}
	}
	if len(b) == 0 {
		return nil, nil
	}
	if len(b)%(2*wordSize) != 0 {
		return nil, &SyntaxError{Text: string(b), What: fmt.Sprintf("%d bytes are no pairs of words", len(b))}
	}
	words := make([]uint64, 0, len(b)/wordSize)
	for ; len(b) > 0; b = b[2*wordSize:] {
		var pair [2]uint64
		for i := range pair {
			if wordSize == 8 {
				pair[i] = binary.LittleEndian.Uint64(b[8*i:])
			} else {
				pair[i] = uint64(binary.LittleEndian.Uint32(b[4*i:]))
			}
		}
		if pair[0] == 0 {
			return words, nil
		}
		words = append(words, pair[:]...)
	}
	return nil, &SyntaxError{Text: fmt.Sprintf("%d words", len(words)), What: "no AT_NULL"}
}

// SplitArgs splits the arguments of cmdline or the variables of environ. The zero byte after the last may be missing: the
// process can have overwritten it.
func SplitArgs(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// A Page is a word of pagemap, what the kernel tells of one page of a process. Documentation/admin-guide/mm/pagemap.rst.
type Page uint64

// Bits of a Page.
const (
	pageSoftDirty = 1 << 55
	pageExclusive = 1 << 56
	pageUffdWP    = 1 << 57
	pageGuard     = 1 << 58
	pageFile      = 1 << 61
	pageSwap      = 1 << 62
	pagePresent   = 1 << 63
)

// Present reports that the page is in memory. The zero page is, too.
func (p Page) Present() bool { return p&pagePresent != 0 }

// Swapped reports that the page is in swap, or is being moved.
func (p Page) Swapped() bool { return p&pageSwap != 0 }

// File reports that the page belongs to a file or to shared memory; a private copy of a file's page does not.
func (p Page) File() bool { return p&pageFile != 0 }

// Exclusive reports that the page is mapped once.
func (p Page) Exclusive() bool { return p&pageExclusive != 0 }

// SoftDirty reports that the page was written since the bits were cleared. Without CONFIG_MEM_SOFT_DIRTY it is false.
func (p Page) SoftDirty() bool { return p&pageSoftDirty != 0 }

// UffdWP reports that userfaultfd protects the page from writing.
func (p Page) UffdWP() bool { return p&pageUffdWP != 0 }

// Guard reports that MADV_GUARD_INSTALL guards the page (6.15).
func (p Page) Guard() bool { return p&pageGuard != 0 }

// PFN returns the page frame of a present page; the kernel shows 0 to a reader without CAP_SYS_ADMIN.
func (p Page) PFN() uint64 { return uint64(p) & (1<<55 - 1) }

// ParsePages parses words of pagemap into pages, and returns how many there were. The kernel writes them in the byte order
// of the machine; little-endian is taken. An odd number of bytes is an error.
func ParsePages(b []byte, pages []Page) (int, error) {
	if len(b)%8 != 0 || len(b)/8 > len(pages) {
		return 0, &SyntaxError{Text: fmt.Sprintf("%d bytes for %d pages", len(b), len(pages)), What: "not as many words"}
	}
	for i := range len(b) / 8 {
		pages[i] = Page(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return len(b) / 8, nil
}
