package proc

import (
	"bytes"
	"io"
	"math"
)

// Infinity is RLIM_INFINITY.
const Infinity = math.MaxUint64

// A Limit is a soft and a hard limit.
type Limit struct {
	Soft, Hard uint64
}

// Limits are the limits of a process by their RLIMIT_ numbers.
type Limits [16]Limit

// limitNames are the names in limits, by RLIMIT_ numbers.
var limitNames = [...]string{
	"Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set",
	"Max processes", "Max open files", "Max locked memory", "Max address space", "Max file locks", "Max pending signals",
	"Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
}

// ParseLimits parses limits. Every limit must be there; one that is not known is an error, since a process restored
// without it would have another.
func ParseLimits(r io.Reader) (Limits, error) {
	var limits Limits
	var seen [len(limits)]bool
	l := newLines(r)
	if !l.next() {
		return limits, l.bad("empty")
	}
	if !bytes.HasPrefix(l.text, []byte("Limit ")) {
		return limits, l.bad("no heading")
	}
	for l.next() {
		i := limitIndex(l.text)
		if i < 0 {
			return limits, l.bad("limit is not known")
		}
		soft, rest := word(l.text[len(limitNames[i]):])
		hard, _ := word(rest)
		if !limitValue(soft, &limits[i].Soft) || !limitValue(hard, &limits[i].Hard) {
			return limits, l.bad("bad value")
		}
		seen[i] = true
	}
	if err := l.failed(); err != nil {
		return limits, err
	}
	for i, ok := range seen {
		if !ok {
			return limits, l.bad("the file ends without %s", limitNames[i])
		}
	}
	return limits, nil
}

func limitIndex(line []byte) int {
	for i, name := range limitNames {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok && len(rest) > 0 && rest[0] == ' ' {
			return i
		}
	}
	return -1
}

func limitValue(b []byte, v *uint64) bool {
	if string(b) == "unlimited" {
		*v = Infinity
		return true
	}
	return number(b, v)
}
