package pages

import "stasis.example/internal/linux"

// A Buffer is room for copies, which stays in the processor's cache, and for what is found.
type Buffer struct {
	room    []byte
	regions []linux.PageRegion
}

// bufferSize is that of a Buffer.
const bufferSize = 256 << 10

// get returns room for so many bytes, or all that there is.
func (b *Buffer) get(n uint64) []byte {
	if n = min(n, bufferSize); n > uint64(len(b.room)) {
		b.room = make([]byte, n)
	}
	return b.room
}

// pageRegions returns room for what a call of PAGEMAP_SCAN finds.
func (b *Buffer) pageRegions() []linux.PageRegion {
	if b.regions == nil {
		b.regions = make([]linux.PageRegion, 512)
	}
	return b.regions
}
