//go:build amd64

package pages

import (
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
)

// Runs come out of a list as they went in, in vectors that one call can move.
func TestVectors(t *testing.T) {
	var list vectors
	type page struct{ offset, address uint64 }
	var want []page
	offset, at := uint64(0), uint64(0x400000)
	for i := range 5000 {
		length := uint64(1+i%3) * Size
		switch {
		case i%1000 == 999:
			length = 3*chunk + Size // more than one vector holds
		case i%700 == 0:
			offset += Size // pages that went elsewhere
		}
		list.add(snapshot.Range{Start: at, End: at + length}, int64(offset))
		for n := uint64(0); n < length; n += Size {
			want = append(want, page{offset + n, at + n})
		}
		offset += length
		at += length + uint64(i%7)*Size
	}
	var got []page
	for i := range list.all {
		v := &list.all[i]
		parts := list.parts(nil, v)
		if len(parts) != v.parts || v.parts > maxParts || v.bytes > chunk {
			t.Fatalf("vector %d has %d parts, of %d, and %d bytes", i, len(parts), v.parts, v.bytes)
		}
		offset := uint64(v.offset)
		for _, part := range parts {
			for n := 0; n < part.Len; n += Size {
				got = append(got, page{offset, uint64(part.Base) + uint64(n)})
				offset += Size
			}
		}
		if offset != uint64(v.offset)+v.bytes {
			t.Fatalf("vector %d has parts of %d bytes, of %d", i, offset-uint64(v.offset), v.bytes)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d pages of %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("page %d is %+v, not %+v", i, got[i], want[i])
		}
	}
	if per := float64(len(list.code)) / 5000; per > 4 {
		t.Errorf("a run takes %.1f bytes", per)
	}
}

// A cutter hands out all bytes once, in order.
func TestCutter(t *testing.T) {
	c := cutter{left: []unix.RemoteIovec{{Base: 0, Len: 10}, {Base: 20, Len: 1}, {Base: 30, Len: 25}}}
	var got []uintptr
	for {
		some, n := c.next(7)
		if n == 0 {
			break
		}
		sum := 0
		for _, part := range some {
			sum += part.Len
			for i := range part.Len {
				got = append(got, part.Base+uintptr(i))
			}
		}
		if sum != n || n > 7 {
			t.Fatalf("%d bytes, said to be %d", sum, n)
		}
	}
	if len(got) != 36 || got[0] != 0 || got[9] != 9 || got[10] != 20 || got[35] != 54 {
		t.Errorf("%v", got)
	}
}

// The process and we take everything once, however the two meet.
func TestWork(t *testing.T) {
	w := work{all: make([]vector, 100)}
	for i := range w.all {
		w.all[i].code = i
	}
	seen := make(map[int]bool)
	for {
		some := w.front(8)
		if len(some) == 0 {
			break
		}
		for _, v := range some {
			seen[v.code] = true
		}
		if v := w.back(); v != nil {
			if seen[v.code] {
				t.Fatalf("vector %d was taken twice", v.code)
			}
			seen[v.code] = true
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d vectors of 100 were taken", len(seen))
	}
}
