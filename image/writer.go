package image

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"stasis.example/image/entry"
)

// flushAt is how much a Writer gathers before it writes: most images are written by one call.
const flushAt = 256 << 10

// A Writer writes the entries of one image file.
type Writer struct {
	name   string
	dst    io.Writer
	closer io.Closer
	buf    []byte
	err    error
	rooms  *rooms // where the buffer goes back to; nil for none
}

// Create makes an image in a directory. Types that a directory has once ignore id.
func Create(d Dir, t Type, id uint64) (*Writer, error) {
	name := t.File(id)
	f, err := d.Create(name)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	w := newWriter(f, t, name, roomsOf(d))
	w.closer = f
	return w, nil
}

// NewWriter writes an image of type t to dst. The caller must call Close, which does not close dst.
func NewWriter(dst io.Writer, t Type) *Writer { return newWriter(dst, t, t.String(), nil) }

func newWriter(dst io.Writer, t Type, name string, rooms *rooms) *Writer {
	w := &Writer{name: name, dst: dst, buf: rooms.takeWrite(), rooms: rooms}
	info := t.info()
	switch info.framing {
	case raw:
		w.err = fmt.Errorf("%w: it has no entries, write it as it is", ErrMagic)
	case common:
		w.buf = binary.LittleEndian.AppendUint32(w.buf, magicCommon)
	case service:
		w.buf = binary.LittleEndian.AppendUint32(w.buf, magicService)
	}
	w.buf = binary.LittleEndian.AppendUint32(w.buf, info.magic)
	return w
}

// Put writes an entry. An error stays: all that follows fails too, Close included.
func (w *Writer) Put(m entry.Message) error {
	if w.err != nil {
		return w.failed()
	}
	at := len(w.buf)
	w.buf = m.Append(append(w.buf, 0, 0, 0, 0))
	size := len(w.buf) - at - 4
	if uint64(size) > math.MaxUint32 {
		w.err = fmt.Errorf("%w: %s of %d bytes", ErrLimit, m.Schema(), size)
		return w.failed()
	}
	binary.LittleEndian.PutUint32(w.buf[at:], uint32(size))
	if len(w.buf) >= flushAt {
		return w.flush()
	}
	return nil
}

// Write writes payload: bytes that belong to the entry which was put last.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.failed()
	}
	if len(w.buf)+len(p) < flushAt {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	n, err := w.dst.Write(p)
	w.err = err
	return n, w.failed()
}

func (w *Writer) failed() error {
	if w.err == nil {
		return nil
	}
	return fmt.Errorf("image %s: cannot write: %w", w.name, w.err)
}

func (w *Writer) flush() error {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.dst.Write(w.buf)
		w.buf = w.buf[:0]
	}
	return w.failed()
}

// Close writes what is left and closes the file, where Create made it. Its error is the first of all: an image is only
// there when Close has said so.
func (w *Writer) Close() error {
	err := w.flush()
	if w.closer != nil {
		if cerr := w.closer.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("image %s: %w", w.name, cerr)
		}
		w.closer = nil
		w.rooms.giveWrite(w.buf)
		w.buf, w.rooms = nil, nil
	}
	return err
}

// WriteAll makes an image with the given entries.
func WriteAll(d Dir, t Type, id uint64, entries ...entry.Message) error {
	w, err := Create(d, t, id)
	if err != nil {
		return err
	}
	for _, m := range entries {
		if w.Put(m) != nil {
			break // Close returns it
		}
	}
	return w.Close()
}
