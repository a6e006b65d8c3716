package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"stasis.example/image/entry"
)

// Limits bound what a reader takes from an image.
type Limits struct {
	EntryBytes int64 // of one entry; a million mappings fit the default
	Entries    int64 // in one file
	Parents    int   // directories in a chain
}

// DefaultLimits are the limits where none are given.
func DefaultLimits() Limits {
	return Limits{EntryBytes: 64 << 20, Entries: 64 << 20, Parents: 256}
}

func (l Limits) orDefault() Limits {
	def := DefaultLimits()
	if l.EntryBytes <= 0 {
		l.EntryBytes = def.EntryBytes
	}
	if l.Entries <= 0 {
		l.Entries = def.Entries
	}
	if l.Parents <= 0 {
		l.Parents = def.Parents
	}
	return l
}

// Errors that readers return, wrapped with the file and the place.
var (
	ErrMagic   = errors.New("not this kind of image")
	ErrCorrupt = errors.New("image is damaged")
	ErrLimit   = errors.New("image exceeds a limit")
)

// A Reader reads the entries of one image file.
type Reader struct {
	name string
	*readRoom
	rooms   *rooms // where the room goes back to; nil for none
	closer  io.Closer
	limits  Limits
	off     int64 // what has been read of the file, payload that is still to be read counted
	count   int64
	payload payload
}

// payload reads the bytes after an entry. A file that ends before they do is an error, not an end.
type payload struct {
	src  io.Reader
	left int64
}

func (p *payload) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.src.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if errors.Is(err, io.EOF) && p.left > 0 {
		err = fmt.Errorf("%w: payload is cut off: %w", ErrCorrupt, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Open opens an image of a directory for reading. Types that a directory has once ignore id. The error wraps
// fs.ErrNotExist where there is no such image.
func Open(d Dir, t Type, id uint64) (*Reader, error) {
	name := t.File(id)
	f, err := d.Open(name)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	r, err := newReader(f, t, name, Limits{}, roomsOf(d))
	if err != nil {
		f.Close()
		return nil, err
	}
	r.closer = f
	return r, nil
}

// NewReader reads an image of type t from src; zero limits are the default ones. It checks the magic at once.
func NewReader(src io.Reader, t Type, limits Limits) (*Reader, error) {
	return newReader(src, t, t.String(), limits, nil)
}

func newReader(src io.Reader, t Type, name string, limits Limits, rooms *rooms) (*Reader, error) {
	r := &Reader{name: name, readRoom: rooms.takeRead(src), rooms: rooms, limits: limits.orDefault()}
	info := t.info()
	want := []uint32{info.magic}
	switch info.framing {
	case raw:
		return nil, fmt.Errorf("image %s: %w: it has no entries, read it as it is", name, ErrMagic)
	case common:
		want = []uint32{magicCommon, info.magic}
	case service:
		want = []uint32{magicService, info.magic}
	}
	for i, magic := range want {
		got, err := r.uint32()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, r.fail("cannot read the magic", err)
		}
		switch {
		case got == magic:
		case i == 0 && got == info.magic:
			return nil, r.fail("image format 1.0, of old CRIUs, is not read; restore and dump it again with CRIU", ErrMagic)
		default:
			return nil, r.fail(fmt.Sprintf("magic %#x, want %#x for %v", got, magic, t), ErrMagic)
		}
	}
	return r, nil
}

func (r *Reader) fail(what string, err error) error {
	return fmt.Errorf("image %s: at byte %d: %s: %w", r.name, r.off, what, err)
}

func (r *Reader) uint32() (uint32, error) {
	b, err := r.src.Peek(4)
	if err != nil {
		if len(b) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	v := binary.LittleEndian.Uint32(b)
	r.src.Discard(4)
	r.off += 4
	return v, nil
}

// Next reads the next entry into m. At the end of the file it returns io.EOF itself. What is left of the payload of the
// entry before is skipped.
func (r *Reader) Next(m entry.Message) error {
	b, err := r.next()
	if err != nil {
		return err
	}
	if err := m.Decode(b); err != nil {
		return fmt.Errorf("image %s: entry %d: %w: %w", r.name, r.count-1, ErrCorrupt, err)
	}
	return nil
}

// next returns the bytes of the next entry, valid until the next call.
func (r *Reader) next() ([]byte, error) {
	if r.payload.left > 0 {
		if _, err := io.Copy(io.Discard, &r.payload); err != nil {
			r.off -= r.payload.left
			return nil, r.fail(fmt.Sprintf("after entry %d", r.count-1), err)
		}
	}
	size, err := r.uint32()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, r.fail("the length of an entry is cut off", fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, r.fail("cannot read", err)
	}
	if int64(size) > r.limits.EntryBytes {
		return nil, r.fail(fmt.Sprintf("entry %d of %d bytes, at most %d are taken", r.count, size, r.limits.EntryBytes), ErrLimit)
	}
	if r.count++; r.count > r.limits.Entries {
		return nil, r.fail(fmt.Sprintf("more than %d entries", r.limits.Entries), ErrLimit)
	}
	b, err := r.bytes(int(size))
	r.off += int64(len(b))
	if err != nil {
		return nil, r.fail(fmt.Sprintf("entry %d of %d bytes is cut off", r.count-1, size), fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return b, nil
}

// Skip moves over the next entry without decoding it. At the end of the file it returns io.EOF itself.
func (r *Reader) Skip() error {
	_, err := r.next()
	return err
}

// bytes returns the next n bytes: from the source's own buffer where they fit into that, else from a buffer which grows only with what
// is really there: a length is only a claim.
func (r *Reader) bytes(n int) ([]byte, error) {
	if n <= r.src.Size() {
		if b, err := r.src.Peek(n); err == nil {
			_, _ = r.src.Discard(n)
			return b, nil
		}
	}
	const step = 64 << 10
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		have := len(r.buf)
		want := min(n, max(have*2, have+step))
		if cap(r.buf) < want {
			r.buf = append(make([]byte, 0, want), r.buf...)
		}
		got, err := io.ReadFull(r.src, r.buf[have:want])
		r.buf = r.buf[:have+got]
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return r.buf, err
		}
	}
	return r.buf, nil
}

// Payload returns a reader of the n bytes that follow the entry which was read last. It is valid until the next call of
// Next, which skips what was not read.
func (r *Reader) Payload(n int64) io.Reader {
	r.payload = payload{r.src, max(n, 0)}
	r.off += r.payload.left
	return &r.payload
}

// Rest returns a reader of all that follows the entry which was read last, to the end of the file.
func (r *Reader) Rest() io.Reader { return r.src }

// Close closes the file, where Open opened it.
func (r *Reader) Close() error {
	if r.closer == nil {
		return nil
	}
	if r.rooms != nil {
		r.rooms.giveRead(r.readRoom)
		r.readRoom, r.rooms = nil, nil
	}
	return r.closer.Close()
}

// ReadOne reads an image that has one entry into m. More than one is an error.
func ReadOne(d Dir, t Type, id uint64, m entry.Message) (err error) {
	r, err := Open(d, t, id)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Next(m); err != nil {
		if errors.Is(err, io.EOF) {
			return r.fail("no entry", fmt.Errorf("%w: %w", ErrCorrupt, io.ErrUnexpectedEOF))
		}
		return err
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		return r.fail("more than one entry", errors.Join(ErrCorrupt, err))
	}
	return nil
}

// ReadAll reads all entries of an image without payloads. T is the type of an entry: ReadAll[entry.File](d, Files, 0).
func ReadAll[T any, P interface {
	*T
	entry.Message
}](d Dir, t Type, id uint64) ([]T, error) {
	r, err := Open(d, t, id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []T
	for {
		var m T
		err := r.Next(P(&m))
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
}
