package plan

import (
	"bytes"
	"errors"
	"io"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// Fate is what becomes of pages of a process that has been forked and is being filled.
type Fate uint8

// The fates.
const (
	// Write takes the pages from the images.
	Write Fate = iota + 1
	// Keep leaves pages that came from the process which forked this one as they are, and so shared: the images have the same for
	// both.
	Keep
	// Drop gives back pages that came with the fork and that this process had not (MADV_DONTNEED).
	Drop
)

// A Run is pages that have one fate and, if they are to be written, are in one place.
type Run struct {
	snapshot.Range
	Fate   Fate
	File   image.File // of Write: the pages file, which is open until done returns
	Offset int64      // of Write: of the first page in File
}

// WalkRoom is room for pages that are compared. Walks use it one after the other.
type WalkRoom [2][]byte

// Walk tells for all pages of a space, in order of addresses, what becomes of them when the space is filled. Pages that may be
// shared with the process From are compared, as the images have them; others are not looked at. At the end, while the files of the
// runs are still open, done is called with what went wrong, if anything did, and what it returns is what Walk returns.
func (p *Plan) Walk(d image.Dir, m *Memory, room *WalkRoom, yield func(Run) error, done func(error) error) error {
	w := &walker{pageSize: p.Tree.PageSize, yield: yield, compared: room}
	open := func(pid int) (*runs, error) {
		c, err := image.OpenChain(d, image.Pagemap, uint64(pid), p.Tree.PageSize, image.Limits{})
		return &runs{chain: c, pageSize: p.Tree.PageSize}, err
	}
	var err error
	if w.mine, err = open(m.PID); err != nil {
		return done(err)
	}
	defer w.mine.chain.Close()
	if m.From != 0 {
		if w.theirs, err = open(p.owner(m.From)); err != nil {
			return done(err)
		}
		defer w.theirs.chain.Close()
	}
	return done(w.all(m.Inherit))
}

// all walks over the space.
func (w *walker) all(inherit []snapshot.Range) error {
	at := uint64(0)
	for _, r := range inherit {
		if err := w.write(at, r.Start); err != nil {
			return err
		}
		if err := w.inherit(r); err != nil {
			return err
		}
		at = r.End
	}
	if err := w.write(at, ^uint64(0)); err != nil {
		return err
	}
	return w.flush()
}

// owner returns the process whose pagemap has the pages of a task.
func (p *Plan) owner(pid int) int {
	for _, t := range p.Tree.Tasks {
		if t.PID.Num() != pid {
			continue
		}
		for i := range p.Memory {
			if p.Memory[i].Space == t.Space {
				return p.Memory[i].PID
			}
		}
	}
	return pid
}

type walker struct {
	pageSize     uint64
	mine, theirs *runs
	yield        func(Run) error
	last         Run // not told yet: the next may continue it
	compared     *WalkRoom
}

// tell adds a run, to the one before if they fit together.
func (w *walker) tell(r Run) error {
	l := &w.last
	if l.Fate == r.Fate && l.End == r.Start && l.File == r.File && (r.Fate != Write || l.Offset+int64(l.Len()) == r.Offset) {
		l.End = r.End
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.last = r
	return nil
}

func (w *walker) flush() error {
	l := w.last
	w.last = Run{}
	if l.Fate == 0 {
		return nil
	}
	return w.yield(l)
}

// take tells that pages of mine are to be written.
func (w *walker) take(start, end uint64) error {
	file, off := w.mine.place(start)
	return w.tell(Run{Range: snapshot.Range{Start: start, End: end}, Fate: Write, File: file, Offset: off})
}

// write takes all of mine from one address to another.
func (w *walker) write(from, to uint64) error {
	for at := from; at < to; {
		if err := w.mine.seek(at); err != nil {
			return err
		}
		if w.mine.done || w.mine.now.Start >= to {
			return nil
		}
		start, end := max(at, w.mine.now.Start), min(to, w.mine.now.End)
		if err := w.take(start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// inherit compares what both have in a range.
func (w *walker) inherit(r snapshot.Range) error {
	for at := r.Start; at < r.End; {
		if err := w.mine.seek(at); err != nil {
			return err
		}
		if err := w.theirs.seek(at); err != nil {
			return err
		}
		mine, end := w.mine.until(at, r.End)
		theirs, end := w.theirs.until(at, end)
		var err error
		switch {
		case mine && theirs:
			err = w.compare(at, end)
		case mine:
			err = w.take(at, end)
		case theirs:
			err = w.tell(Run{Range: snapshot.Range{Start: at, End: end}, Fate: Drop})
		}
		if err != nil {
			return err
		}
		at = end
	}
	return nil
}

// comparePages is how many pages are read at a time.
const comparePages = 8

func (w *walker) compare(from, to uint64) error {
	for i := range w.compared {
		if w.compared[i] == nil {
			w.compared[i] = make([]byte, comparePages*w.pageSize)
		}
	}
	a, b := w.compared[0], w.compared[1]
	for from < to {
		n := min(to-from, uint64(len(a)))
		for _, side := range []struct {
			r   *runs
			buf []byte
		}{{w.mine, a[:n]}, {w.theirs, b[:n]}} {
			file, off := side.r.place(from)
			if _, err := file.ReadAt(side.buf, off); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		for i := uint64(0); i < n; i += w.pageSize {
			at, end := from+i, from+i+w.pageSize
			var err error
			if bytes.Equal(a[i:i+w.pageSize], b[i:i+w.pageSize]) {
				err = w.tell(Run{Range: snapshot.Range{Start: at, End: end}, Fate: Keep})
			} else {
				err = w.take(at, end)
			}
			if err != nil {
				return err
			}
		}
		from += n
	}
	return nil
}

// until reports whether the present run has an address, and up to where that stays so.
func (r *runs) until(addr, end uint64) (has bool, to uint64) {
	switch {
	case r.done:
		return false, end
	case r.now.Start > addr:
		return false, min(end, r.now.Start)
	}
	return true, min(end, r.now.End)
}

// place returns where the page at an address of the present run is.
func (r *runs) place(addr uint64) (image.File, int64) {
	return r.chain.PagesFile(r.at.Level), r.at.Offset + int64(addr-r.at.Addr)
}
