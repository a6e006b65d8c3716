package image

import (
	"bufio"
	"io"
	"sync"
)

// rooms are buffers that a directory keeps for the next who reads or writes one of its images: a tree of processes has thousands of
// small ones. Without rooms, nil, each gets a new buffer.
type rooms struct {
	read  sync.Pool // of *bufio.Reader
	write sync.Pool // of *[]byte
}

const roomSize = 4 << 10

// roomsOf returns those of a directory, nil for none.
func roomsOf(d Dir) *rooms {
	if d, ok := d.(*osDir); ok {
		return &d.rooms
	}
	return nil
}

func (r *rooms) takeRead(src io.Reader) *bufio.Reader {
	if r != nil {
		if b, ok := r.read.Get().(*bufio.Reader); ok {
			b.Reset(src)
			return b
		}
	}
	return bufio.NewReaderSize(src, roomSize)
}

func (r *rooms) giveRead(b *bufio.Reader) {
	b.Reset(nil)
	r.read.Put(b)
}

func (r *rooms) takeWrite() []byte {
	if r != nil {
		if b, ok := r.write.Get().(*[]byte); ok {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, roomSize)
}

// giveWrite keeps a buffer, unless it has grown large.
func (r *rooms) giveWrite(b []byte) {
	if r != nil && cap(b) <= 4*roomSize {
		r.write.Put(&b)
	}
}
