package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// An Extent is a run of pages and where they are.
type Extent struct {
	PageRun       // Flags are those of the images that the dump itself made: PageParent says Level > 0
	Level   int   // 0 for the directory itself, 1 for its parent, and so on
	Offset  int64 // of the first page in Chain.PagesFile(Level); -1 for lazy pages that are in no file
}

// A Chain reads a pagemap and looks up what is in parents. Its memory does not grow with the pagemaps.
type Chain struct {
	t        Type
	id       uint64
	pageSize uint64
	limits   Limits
	levels   []*level
	run      PageRun // what is left of the present run of level 0
}

// level is one directory of a chain.
type level struct {
	dir     Dir
	owned   bool
	pagemap *PagemapReader
	run     PageRun // the present run; no pages before the first and after the last
	off     int64   // of its first page in the pages file, if it is present
	next    int64   // of the first present page of the next run
	done    bool
	pages   File
	size    int64
}

// OpenChain opens a pagemap of d, and those of its parents when they are needed. Arguments are as for OpenPagemap; d stays
// the caller's.
func OpenChain(d Dir, t Type, id uint64, pageSize uint64, limits Limits) (*Chain, error) {
	c := &Chain{t: t, id: id, pageSize: pageSize, limits: limits.orDefault()}
	if err := c.open(d, false); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Chain) open(d Dir, owned bool) error {
	p, err := OpenPagemap(d, c.t, c.id, c.pageSize)
	if err != nil {
		return err
	}
	c.levels = append(c.levels, &level{dir: d, owned: owned, pagemap: p})
	return nil
}

// Next returns the next extent in ascending order of addresses. A run of the pagemap becomes several where its pages are in
// several places. At the end it returns io.EOF itself.
func (c *Chain) Next() (Extent, error) {
	top := c.levels[0]
	if c.run.Pages == 0 {
		if err := top.advance(c.pageSize); err != nil {
			return Extent{}, err
		}
		if top.done {
			return Extent{}, io.EOF
		}
		c.run = top.run
	}
	e, err := c.find(0, c.run)
	if err != nil {
		return Extent{}, err
	}
	e.Flags = c.run.Flags
	c.run.Addr += e.Pages * c.pageSize
	c.run.Pages -= e.Pages
	return e, nil
}

// advance moves to the next run.
func (l *level) advance(pageSize uint64) error {
	run, err := l.pagemap.Next()
	if errors.Is(err, io.EOF) {
		l.run, l.done = PageRun{}, true
		return nil
	}
	if err != nil {
		return err
	}
	l.run, l.off = run, l.next
	if run.Flags&PagePresent != 0 {
		bytes := run.Pages * pageSize
		if bytes > 1<<62 || l.next > 1<<62 {
			return fmt.Errorf("image %s: %w: more pages than a file can hold", l.pagemap.r.name, ErrCorrupt)
		}
		l.next += int64(bytes)
	}
	return nil
}

// find returns where the first pages of want are, as many as are in one place, in level n or above. The addresses that a
// level is asked for only ascend, so each pagemap is read once.
func (c *Chain) find(n int, want PageRun) (Extent, error) {
	l := c.levels[n]
	for !l.done && (l.run.Pages == 0 || l.run.End(c.pageSize) <= want.Addr) {
		if err := l.advance(c.pageSize); err != nil {
			return Extent{}, err
		}
	}
	if l.done || l.run.Addr > want.Addr {
		return Extent{}, fmt.Errorf("image %s: %w: page %#x is said to be in the parent, and level %d of the parents does not have it", c.levels[0].pagemap.r.name, ErrCorrupt, want.Addr, n)
	}
	skip := (want.Addr - l.run.Addr) / c.pageSize
	want.Pages = min(want.Pages, l.run.Pages-skip)
	switch {
	case l.run.Flags&PagePresent != 0:
		e := Extent{PageRun: want, Level: n, Offset: l.off + int64(skip*c.pageSize)}
		if err := l.checkSize(e, c.pageSize); err != nil {
			return Extent{}, err
		}
		return e, nil
	case l.run.Flags&PageParent != 0:
		if n+1 == len(c.levels) {
			if err := c.openParent(); err != nil {
				return Extent{}, fmt.Errorf("image %s: page %#x is in the parent of level %d: %w", l.pagemap.r.name, want.Addr, n, err)
			}
		}
		return c.find(n+1, want)
	}
	return Extent{PageRun: want, Level: n, Offset: -1}, nil
}

func (c *Chain) openParent() error {
	if len(c.levels) > c.limits.Parents {
		return fmt.Errorf("%w: more than %d parents; do they lead round in a circle?", ErrLimit, c.limits.Parents)
	}
	d, err := c.levels[len(c.levels)-1].dir.Parent()
	if err != nil {
		return err
	}
	if err := c.open(d, true); err != nil {
		d.Close()
		return err
	}
	return nil
}

// checkSize makes sure that the pages file is as big as the pagemap says.
func (l *level) checkSize(e Extent, pageSize uint64) error {
	if l.pages == nil {
		f, err := l.openPages()
		if err != nil {
			return err
		}
		size, err := sizeOf(f)
		if err != nil {
			f.Close()
			return err
		}
		l.pages, l.size = f, size
	}
	if end := e.Offset + int64(e.Pages*pageSize); end > l.size {
		return fmt.Errorf("image %s: %w: it has %d bytes, the pagemap tells of %d", Pages.File(uint64(l.pagemap.PagesID())), ErrCorrupt, l.size, end)
	}
	return nil
}

func (l *level) openPages() (File, error) {
	name := Pages.File(uint64(l.pagemap.PagesID()))
	f, err := l.dir.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return f, nil
}

// PagesFile returns the pages file of a level that an extent with an offset has named. It stays the chain's.
func (c *Chain) PagesFile(level int) File { return c.levels[level].pages }

// PagesID returns the id of a level's pages file.
func (c *Chain) PagesID(level int) uint32 { return c.levels[level].pagemap.PagesID() }

// Close closes the files and the parents.
func (c *Chain) Close() error {
	var errs []error
	for _, l := range c.levels {
		errs = append(errs, l.pagemap.Close())
		if l.pages != nil {
			errs = append(errs, l.pages.Close())
		}
		if l.owned {
			errs = append(errs, l.dir.Close())
		}
	}
	c.levels = nil
	return errors.Join(errs...)
}
