package pages

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
)

// A vector is a number of runs that one call moves, and that follow each other in the sink.
type vector struct {
	offset int64 // in the sink
	bytes  uint64
	parts  int
	first  uint64 // address of the first page
	code   int    // where the list has its runs
}

const (
	maxParts  = 1024 // UIO_MAXIOV
	partBytes = 16   // of a struct iovec

	// chunk is how much is moved by one call: while the process writes its own pages it looks between two calls whether we
	// are there.
	chunk = 4 << 20
)

// vectors are runs on their way to a sink. A process whose pages lie apart has as many runs as pages, so a run takes no more
// than the bytes that its length and its distance to the one before need.
type vectors struct {
	all  []vector
	code []byte
	end  uint64 // of the last run
}

// add adds a run, which is above all that were added.
func (l *vectors) add(r snapshot.Range, offset int64) {
	for r.Len() > 0 {
		n := len(l.all) - 1
		if n < 0 || l.all[n].parts == maxParts || l.all[n].bytes >= chunk || l.all[n].offset+int64(l.all[n].bytes) != offset {
			l.all = append(l.all, vector{offset: offset, first: r.Start, code: len(l.code)})
			l.end = r.Start
			n++
		}
		v := &l.all[n]
		part := min(r.Len(), chunk-v.bytes)
		l.code = binary.AppendUvarint(l.code, (r.Start-l.end)/Size)
		l.code = binary.AppendUvarint(l.code, part/Size)
		v.parts++
		v.bytes += part
		offset += int64(part)
		r.Start += part
		l.end = r.Start
	}
}

// parts appends the runs of a vector.
func (l *vectors) parts(to []unix.RemoteIovec, v *vector) []unix.RemoteIovec {
	at, code := v.first, l.code[v.code:]
	for range v.parts {
		gap, n := binary.Uvarint(code)
		pages, m := binary.Uvarint(code[n:])
		code = code[n+m:]
		at += gap * Size
		to = append(to, unix.RemoteIovec{Base: uintptr(at), Len: int(pages * Size)})
		at += pages * Size
	}
	return to
}

// A cutter cuts parts of memory into portions.
type cutter struct {
	left []unix.RemoteIovec
	some []unix.RemoteIovec
}

// next returns parts of at most so many bytes together, and how many they have. They are valid until the next call.
func (c *cutter) next(most int) (some []unix.RemoteIovec, bytes int) {
	c.some = c.some[:0]
	for len(c.left) > 0 && bytes < most {
		first := &c.left[0]
		n := min(first.Len, most-bytes)
		c.some = append(c.some, unix.RemoteIovec{Base: first.Base, Len: n})
		bytes += n
		first.Base += uintptr(n)
		first.Len -= n
		if first.Len == 0 {
			c.left = c.left[1:]
		}
	}
	return c.some, bytes
}
