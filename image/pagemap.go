package image

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"stasis.example/image/entry"

	"google.golang.org/protobuf/encoding/protowire"
)

// PageFlags say where the pages of a run are.
type PageFlags uint32

// The flags of CRIU 4.2. A run has PagePresent, PageParent, or PageLazy alone or with PagePresent.
const (
	PageParent  PageFlags = 1 << iota // unchanged since the dump before: in its images
	PageLazy                          // may be fetched after the restore has finished
	PagePresent                       // in the pages file
)

// String returns CRIU's names: "PE_LAZY|PE_PRESENT".
func (f PageFlags) String() string {
	var names []string
	for i, name := range []string{"PE_PARENT", "PE_LAZY", "PE_PRESENT"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := f &^ (PageParent | PageLazy | PagePresent); rest != 0 || f == 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, "|")
}

// A PageRun is a run of pages that are in the same place.
type PageRun struct {
	Addr  uint64 // of the first page; in a PagemapShmem the offset in the segment
	Pages uint64 // how many
	Flags PageFlags
}

// End returns the address after the run.
func (r PageRun) End(pageSize uint64) uint64 { return r.Addr + r.Pages*pageSize }

// ErrCompressed is what reading images with compressed pages fails with.
var ErrCompressed = errors.New("pages are compressed, or described in another way that CRIU 4.2 does not have; dump without compression, or have crit decompress them")

// A PagemapReader reads the runs of one pagemap in order. It allocates nothing per run.
type PagemapReader struct {
	r        *Reader
	pagesID  uint32
	pageSize uint64
	end      uint64 // of the run before
}

// OpenPagemap opens a pagemap; t is Pagemap or PagemapShmem. pageSize is that of the machine which was dumped; images do
// not tell it. The error wraps fs.ErrNotExist where there is no such pagemap.
func OpenPagemap(d Dir, t Type, id uint64, pageSize uint64) (*PagemapReader, error) {
	if err := checkPagemap(t, pageSize); err != nil {
		return nil, err
	}
	r, err := Open(d, t, id)
	if err != nil {
		return nil, err
	}
	p, err := newPagemapReader(r, pageSize)
	if err != nil {
		r.Close()
	}
	return p, err
}

// NewPagemapReader reads a pagemap from src; see OpenPagemap.
func NewPagemapReader(src io.Reader, pageSize uint64, limits Limits) (*PagemapReader, error) {
	if err := checkPagemap(Pagemap, pageSize); err != nil {
		return nil, err
	}
	r, err := NewReader(src, Pagemap, limits)
	if err != nil {
		return nil, err
	}
	return newPagemapReader(r, pageSize)
}

func checkPagemap(t Type, pageSize uint64) error {
	if t != Pagemap && t != PagemapShmem {
		return fmt.Errorf("%v is no pagemap", t)
	}
	if pageSize < 1024 || pageSize > 1<<20 || pageSize&(pageSize-1) != 0 {
		return fmt.Errorf("%d is no page size", pageSize)
	}
	return nil
}

func newPagemapReader(r *Reader, pageSize uint64) (*PagemapReader, error) {
	var head entry.PagemapHead
	if err := r.Next(&head); err != nil {
		if errors.Is(err, io.EOF) {
			err = r.fail("no head", fmt.Errorf("%w: %w", ErrCorrupt, io.ErrUnexpectedEOF))
		}
		return nil, err
	}
	return &PagemapReader{r: r, pagesID: head.PagesID, pageSize: pageSize}, nil
}

// PagesID returns the id of the pages file: Pages.File of it is its name.
func (p *PagemapReader) PagesID() uint32 { return p.pagesID }

// Next returns the next run. Runs ascend and do not overlap; a pagemap where they do otherwise is damaged. At the end Next
// returns io.EOF itself.
func (p *PagemapReader) Next() (PageRun, error) {
	b, err := p.r.next()
	if err != nil {
		return PageRun{}, err
	}
	run, err := parsePageRun(b)
	if err != nil {
		return PageRun{}, p.bad(err.Error(), err)
	}
	end := run.Addr + run.Pages*p.pageSize
	switch {
	case run.Addr%p.pageSize != 0:
		return PageRun{}, p.bad(fmt.Sprintf("address %#x is not on a page", run.Addr), nil)
	case run.Pages == 0:
		return PageRun{}, p.bad(fmt.Sprintf("no pages at %#x", run.Addr), nil)
	case run.Pages > (^uint64(0)-run.Addr)/p.pageSize:
		return PageRun{}, p.bad(fmt.Sprintf("%d pages at %#x are more than there can be", run.Pages, run.Addr), nil)
	case run.Addr < p.end:
		return PageRun{}, p.bad(fmt.Sprintf("run at %#x begins before the end of the one before, %#x", run.Addr, p.end), nil)
	case run.Flags&PageParent != 0 && run.Flags&PagePresent != 0, run.Flags == 0:
		return PageRun{}, p.bad(fmt.Sprintf("run at %#x has flags %v", run.Addr, run.Flags), nil)
	}
	p.end = end
	return run, nil
}

func (p *PagemapReader) bad(what string, err error) error {
	if err == nil {
		err = ErrCorrupt
	}
	if errors.Is(err, ErrCompressed) {
		return fmt.Errorf("image %s: entry %d: %w", p.r.name, p.r.count-1, err)
	}
	return fmt.Errorf("image %s: entry %d: %s: %w", p.r.name, p.r.count-1, what, ErrCorrupt)
}

// Close closes the file.
func (p *PagemapReader) Close() error { return p.r.Close() }

// runTag reads a tag of a pagemap_entry that is written in an unusual way, or refuses it.
func runTag(b []byte) (num, n int, err error) {
	number, typ, n := protowire.ConsumeTag(b)
	switch {
	case n < 0:
		return 0, 0, errors.New("bad tag")
	case number > 5:
		return 0, 0, fmt.Errorf("%w (field %d)", ErrCompressed, number)
	case typ != protowire.VarintType:
		return 0, 0, fmt.Errorf("field %d has wire type %d", number, typ)
	}
	return int(number), n, nil
}

// parsePageRun decodes a pagemap_entry without allocating: a process may have millions. entry.PagemapEntry does the same
// at leisure, and a test holds the two together. Unlike there, what is not known is refused: all that newer CRIUs have
// added says that the pages file is not what it seems.
func parsePageRun(b []byte) (run PageRun, err error) {
	const (
		vaddr = 1 << iota
		compat
		inParent
		flags
		pages
	)
	seen := 0
	var compatPages, newPages uint64
	var parent bool
	for len(b) > 0 {
		num, n := int(b[0]>>3), 1
		if tag := b[0]; tag >= 0x80 || tag&7 != byte(protowire.VarintType) || num == 0 || num > 5 { // all known tags are one byte
			if num, n, err = runTag(b); err != nil {
				return run, err
			}
		}
		v, m := protowire.ConsumeVarint(b[n:])
		if m < 0 {
			return run, fmt.Errorf("field %d is a bad number", num)
		}
		b = b[n+m:]
		switch num {
		case 1:
			run.Addr = v
		case 2:
			compatPages = v
		case 3:
			parent = v != 0
		case 4:
			run.Flags = PageFlags(v)
		case 5:
			newPages = v
		}
		if num == 2 || num == 4 {
			if v > 1<<32-1 {
				return run, fmt.Errorf("field %d is too big", num)
			}
		}
		seen |= 1 << (num - 1)
	}
	if seen&vaddr == 0 || seen&compat == 0 {
		return run, errors.New("a required field is missing")
	}
	run.Pages = compatPages
	if seen&pages != 0 {
		run.Pages = newPages
	}
	if seen&flags == 0 && !parent {
		run.Flags = PagePresent // in old images there are no flags
	}
	if parent {
		run.Flags |= PageParent
	}
	if odd := run.Flags &^ (PageParent | PageLazy | PagePresent); odd != 0 {
		return run, fmt.Errorf("%w (flag %#x)", ErrCompressed, uint32(odd))
	}
	return run, nil
}

// A PagemapWriter writes the runs of one pagemap.
type PagemapWriter struct {
	w        *Writer
	pageSize uint64
	last     PageRun // not written yet: the next may continue it
	present  uint64

	entry entry.PagemapEntry // and what it points at, kept so that a run allocates nothing
	flags uint32
	pages uint64
}

// CreatePagemap makes a pagemap for the pages file pagesID; t is Pagemap or PagemapShmem.
func CreatePagemap(d Dir, t Type, id uint64, pagesID uint32, pageSize uint64) (*PagemapWriter, error) {
	if err := checkPagemap(t, pageSize); err != nil {
		return nil, err
	}
	w, err := Create(d, t, id)
	if err != nil {
		return nil, err
	}
	p := &PagemapWriter{w: w, pageSize: pageSize}
	return p, w.Put(&entry.PagemapHead{PagesID: pagesID})
}

// Add appends a run. Runs must ascend; one that goes on where the last ended, with the same flags, becomes part of it.
func (p *PagemapWriter) Add(run PageRun) error {
	if run.Pages == 0 {
		return nil
	}
	if p.last.Pages > 0 {
		end := p.last.End(p.pageSize)
		if run.Addr < end {
			return fmt.Errorf("image %s: run at %#x begins before the end of the one before, %#x", p.w.name, run.Addr, end)
		}
		if run.Addr == end && run.Flags == p.last.Flags {
			p.last.Pages += run.Pages
			p.count(run)
			return nil
		}
		if err := p.put(); err != nil {
			return err
		}
	}
	p.last = run
	p.count(run)
	return nil
}

func (p *PagemapWriter) count(run PageRun) {
	if run.Flags&PagePresent != 0 {
		p.present += run.Pages
	}
}

func (p *PagemapWriter) put() error {
	if p.last.Pages == 0 {
		return nil
	}
	// The count goes in both fields where it fits: up to CRIU 4.1 only the old one was read, since 4.2 the new one wins.
	p.flags, p.pages = uint32(p.last.Flags), p.last.Pages
	p.entry = entry.PagemapEntry{Vaddr: p.last.Addr, Flags: &p.flags, NrPages: &p.pages}
	if p.pages < 1<<32 {
		p.entry.CompatNrPages = uint32(p.pages)
	}
	err := p.w.Put(&p.entry)
	p.last = PageRun{}
	return err
}

// Close writes what is left and closes the file.
func (p *PagemapWriter) Close() error {
	if err := p.put(); err != nil {
		p.w.Close()
		return err
	}
	return p.w.Close()
}

// Present returns how many pages of the pages file the runs so far are.
func (p *PagemapWriter) Present() uint64 { return p.present }
