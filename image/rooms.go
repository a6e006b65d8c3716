package image

import (
	"bufio"
	"io"
	"sync"
)

// rooms are buffers that a directory keeps for the next who reads or writes one of its images: a tree of processes has thousands of
// small ones. Without rooms, nil, each gets a new buffer.
type rooms struct {
	read  sync.Pool // of *readRoom
	write sync.Pool // of *[]byte
}

// A readRoom is what a reader reads with.
type readRoom struct {
	src *bufio.Reader
	buf []byte // of an entry
}

const roomSize = 4 << 10

// roomsOf returns those of a directory, or of the one that it is a view of, nil for none.
func roomsOf(d Dir) *rooms {
	for {
		switch at := d.(type) {
		case *osDir:
			return &at.rooms
		case interface{ Unwrap() Dir }:
			d = at.Unwrap()
		default:
			return nil
		}
	}
}

func (r *rooms) takeRead(src io.Reader) *readRoom {
	if r != nil {
		if room, ok := r.read.Get().(*readRoom); ok {
			room.src.Reset(src)
			return room
		}
	}
	return &readRoom{src: bufio.NewReaderSize(src, roomSize)}
}

// giveRead keeps a room; a buffer that has grown large goes.
func (r *rooms) giveRead(room *readRoom) {
	room.src.Reset(nil)
	if cap(room.buf) > 4*roomSize {
		room.buf = nil
	}
	r.read.Put(room)
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
