package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// Memory is what an address space gets. The runs of pages themselves stay in the images: a space may have millions, and
// [image.OpenChain] gives them one by one when it is filled. Here they have been read once, and are good.
type Memory struct {
	Space snapshot.ObjectID
	PID   int // the first task that has it, and whose pagemap it is

	Pages    uint64 // in the images
	InParent uint64 // of them, in those of earlier dumps
	Runs     int

	// VDSO is the code that the kernel had mapped into it, nil where the images have none.
	VDSO []byte

	// From is the process whose memory this one has when it has been forked, 0 for none; Inherit are the ranges in which both
	// have mappings of the same thing, and both have pages in the images. See [Plan.Walk] for what becomes of each.
	From      int
	Inherit   []snapshot.Range
	Shareable uint64 // pages of Inherit that both have; how many are the same only their content tells
}

// memory checks the pages of all address spaces against their mappings.
func (p *Plan) memory(d image.Dir, r *images.Report) {
	if p.Tree.PageSize == 0 {
		return // there are no address spaces, which has been said if it is wrong
	}
	spaces := make(map[snapshot.ObjectID]*snapshot.Space, len(p.Tree.Spaces))
	for _, s := range p.Tree.Spaces {
		spaces[s.ID] = s
	}
	tasks := make(map[int]*snapshot.Task, len(p.Tree.Tasks))
	owner := make(map[snapshot.ObjectID]int) // space → the task that has it first
	good := make(map[snapshot.ObjectID]bool)
	var spare []byte // for the next vDSO
	for _, t := range p.Tree.Tasks {
		if r.Stopped() {
			return
		}
		tasks[t.PID.Num()] = t
		s := spaces[t.Space]
		if t.State == snapshot.Dead || s == nil || owner[t.Space] != 0 {
			continue
		}
		owner[t.Space] = t.PID.Num()
		m := Memory{Space: t.Space, PID: t.PID.Num()}
		good[t.Space] = p.scan(d, s, &m, spare, r)
		spare = nil
		if n := len(p.Memory); n > 0 && bytes.Equal(m.VDSO, p.Memory[n-1].VDSO) {
			m.VDSO, spare = p.Memory[n-1].VDSO, m.VDSO // as nearly always: all have been in one kernel
		}
		p.Memory = append(p.Memory, m)
	}
	forker := make(map[int]int)
	for _, s := range p.Steps {
		if s.Op == Fork {
			forker[s.PID] = s.By
		}
	}
	var paths map[snapshot.FileID]snapshot.Path
	if len(p.Memory) > 1 {
		paths = filePaths(p.Tree)
	}
	for i := range p.Memory {
		if r.Stopped() {
			return
		}
		m := &p.Memory[i]
		by := forker[m.PID]
		for by != 0 && tasks[by] == nil {
			by = forker[by] // a helper has the memory of whoever forked it
		}
		if by == 0 || tasks[by].State == snapshot.Dead || !good[m.Space] || !good[tasks[by].Space] {
			continue
		}
		from := tasks[by].Space
		if err := p.inherit(d, m, common(paths, spaces[m.Space].VMAs, spaces[from].VMAs), owner[from], r); err != nil {
			r.Failed(image.Pagemap.File(uint64(m.PID)), err)
		}
		if len(m.Inherit) > 0 {
			m.From = by
		}
	}
}

// filePaths returns the names of files that two mappings can be of without being of the same entry.
func filePaths(t *snapshot.Tree) map[snapshot.FileID]snapshot.Path {
	paths := make(map[snapshot.FileID]snapshot.Path)
	for _, f := range t.Files {
		if object, ok := f.Object.(*snapshot.Regular); ok && !object.External {
			paths[f.ID] = object.Path
		}
	}
	return paths
}

// scan reads the pagemap of a space. Its vDSO goes to spare, if that is as long.
func (p *Plan) scan(d image.Dir, s *snapshot.Space, m *Memory, spare []byte, r *images.Report) bool {
	name := image.Pagemap.File(uint64(m.PID))
	c, err := image.OpenChain(d, image.Pagemap, uint64(m.PID), p.Tree.PageSize, image.Limits{})
	if err != nil {
		failed(r, name, err)
		return false
	}
	defer c.Close()
	vma := 0
	for {
		if r.Stopped() {
			return false
		}
		e, err := c.Next()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			failed(r, name, err)
			return false
		}
		if e.Offset < 0 {
			r.Unsupported(name, "pages at %#x are with a page server, and not in the images", e.Addr)
			return false
		}
		first := vma
		if at, ok := covered(s.VMAs, &vma, e.Addr, e.End(p.Tree.PageSize)); !ok {
			r.Damaged(name, "there is no memory for the page at %#x", at)
			return false
		}
		written(s.VMAs[first:vma+1], e.Addr)
		if err := m.vdso(c, s.VMAs[first:vma+1], &e, p.Tree.PageSize, spare); err != nil {
			failed(r, name, err)
			return false
		}
		m.Runs++
		m.Pages += e.Pages
		if e.Level > 0 {
			m.InParent += e.Pages
		}
	}
}

// written marks mappings that have pages of their own, from an address on, as ones that count against the commit limit: somebody has
// written to them, and could. Code is left out, whose pages are a debugger's, or CRIU's own.
func written(vmas []snapshot.VMA, from uint64) {
	const protExec, noReserve = 4, 0x4000
	for i := range vmas {
		v := &vmas[i]
		if v.End > from && v.Prot&protExec == 0 && v.Flags&noReserve == 0 && (v.Kind == snapshot.AnonPrivate || v.Kind == snapshot.FilePrivate) {
			v.Accounted = true
		}
	}
}

// maxVDSO bounds the code of the kernel's that is looked at.
const maxVDSO = 1 << 20

// vdso keeps what a run has of the kernel's code.
func (m *Memory) vdso(c *image.Chain, vmas []snapshot.VMA, e *image.Extent, pageSize uint64, spare []byte) error {
	for i := range vmas {
		v := &vmas[i]
		start, end := max(v.Start, e.Addr), min(v.End, e.End(pageSize))
		if v.Kind != snapshot.VDSO || start >= end || v.Len() > maxVDSO {
			continue
		}
		if m.VDSO == nil && uint64(len(spare)) == v.Len() {
			m.VDSO = spare
			clear(m.VDSO)
		}
		if m.VDSO == nil {
			m.VDSO = make([]byte, v.Len())
		}
		if uint64(len(m.VDSO)) != v.Len() {
			continue // there is more than one; the first counts
		}
		if _, err := c.PagesFile(e.Level).ReadAt(m.VDSO[start-v.Start:end-v.Start], e.Offset+int64(start-e.Addr)); err != nil {
			return err
		}
	}
	return nil
}

func failed(r *images.Report, name string, err error) {
	if errors.Is(err, image.ErrCompressed) {
		r.Unsupported(name, "%s", strings.TrimPrefix(err.Error(), "image "+name+": ")) // which entry, and what of it
		return
	}
	r.Failed(name, err)
}

// covered reports whether private mappings are all over a range, and where not. Ranges ascend from call to call; next is where the
// search goes on.
func covered(vmas []snapshot.VMA, next *int, addr, end uint64) (at uint64, ok bool) {
	for addr < end {
		for *next < len(vmas) && vmas[*next].End <= addr {
			*next++
		}
		if *next == len(vmas) || vmas[*next].Start > addr {
			return addr, false
		}
		switch vmas[*next].Kind {
		case snapshot.AnonPrivate, snapshot.FilePrivate, snapshot.VDSO:
		default:
			return addr, false
		}
		addr = vmas[*next].End
	}
	return end, true
}

// Advice that keeps a mapping, or its pages, from children.
const (
	adviseDontFork   = 10
	adviseWipeOnFork = 18
)

// inherit finds out what a space can have from that of the process it was forked by, of the ranges that they have in common.
func (p *Plan) inherit(d image.Dir, m *Memory, ranges []snapshot.Range, parentPID int, report *images.Report) error {
	if len(ranges) == 0 {
		return nil
	}
	mine, err := image.OpenChain(d, image.Pagemap, uint64(m.PID), p.Tree.PageSize, image.Limits{})
	if err != nil {
		return err
	}
	defer mine.Close()
	theirs, err := image.OpenChain(d, image.Pagemap, uint64(parentPID), p.Tree.PageSize, image.Limits{})
	if err != nil {
		return nil // which has been said when it was scanned
	}
	defer theirs.Close()
	a, b := &runs{chain: mine, pageSize: p.Tree.PageSize, report: report}, &runs{chain: theirs, pageSize: p.Tree.PageSize, report: report}
	for _, r := range ranges {
		pages, err := overlap(a, b, r)
		if err != nil {
			return err
		}
		if pages > 0 {
			m.Inherit = append(m.Inherit, r)
			m.Shareable += pages / p.Tree.PageSize
		}
	}
	return nil
}

// common returns the ranges in which two spaces have private mappings of the same thing, that a fork hands on.
func common(paths map[snapshot.FileID]snapshot.Path, child, parent []snapshot.VMA) []snapshot.Range {
	var ranges []snapshot.Range
	for i, j := 0, 0; i < len(child) && j < len(parent); {
		c, p := &child[i], &parent[j]
		both := snapshot.Range{Start: max(c.Start, p.Start), End: min(c.End, p.End)}
		if both.Start < both.End && c.Kind == p.Kind && inheritable(p) && inheritable(c) && sameFile(paths, c, p) {
			ranges = append(ranges, both)
		}
		if c.End <= p.End {
			i++
		} else {
			j++
		}
	}
	return ranges
}

func inheritable(v *snapshot.VMA) bool {
	return (v.Kind == snapshot.AnonPrivate || v.Kind == snapshot.FilePrivate) && v.Advice&(1<<adviseDontFork|1<<adviseWipeOnFork) == 0
}

// sameFile reports whether two mappings that overlap show the same of a file at the same address.
func sameFile(paths map[snapshot.FileID]snapshot.Path, a, b *snapshot.VMA) bool {
	if a.Kind != snapshot.FilePrivate {
		return true
	}
	if a.Offset-a.Start != b.Offset-b.Start {
		return false
	}
	path, named := paths[a.File]
	return a.File == b.File || named && path == paths[b.File]
}

// runs walks over a chain.
type runs struct {
	chain    *image.Chain
	pageSize uint64
	at       image.Extent   // the present run
	now      snapshot.Range // and where it is
	done     bool
	report   *images.Report // who waits; nil for somebody who waits as long as it takes
}

// seek moves to the run that has an address or is the next after it.
func (r *runs) seek(addr uint64) error {
	for !r.done && r.now.End <= addr && !r.report.Stopped() {
		e, err := r.chain.Next()
		if errors.Is(err, io.EOF) {
			r.done = true
			return nil
		}
		if err != nil {
			return err
		}
		r.at, r.now = e, snapshot.Range{Start: e.Addr, End: e.End(r.pageSize)}
	}
	return nil
}

// overlap returns how many bytes of a range both have pages for.
func overlap(a, b *runs, in snapshot.Range) (uint64, error) {
	sum := uint64(0)
	for addr := in.Start; addr < in.End && !a.report.Stopped(); {
		if err := errors.Join(a.seek(addr), b.seek(addr)); err != nil {
			return 0, err
		}
		if a.done || b.done {
			break
		}
		start, end := max(addr, a.now.Start, b.now.Start), min(in.End, a.now.End, b.now.End)
		if start < end {
			sum += end - start
			addr = end
		} else {
			addr = start // which is after addr: otherwise both runs would have it
		}
	}
	return sum, nil
}

// Hole finds a range of a length that no address space of the tree uses: where the engine can work while it restores. It is
// the lowest one above the first MiB, which programs are not mapped to and the kernel may not give away.
func (p *Plan) Hole(length uint64) (snapshot.Range, error) {
	const low = 1 << 20
	mask := max(p.Tree.PageSize, 1<<16) - 1
	length = (length + mask) &^ mask
	at := uint64(low)
	// Each space is in order; the lowest address free in all is found by asking them in turn until none objects.
	next := make([]int, len(p.Tree.Spaces))
	for moved := true; moved; {
		moved = false
		for i, s := range p.Tree.Spaces {
			for next[i] < len(s.VMAs) && s.VMAs[next[i]].End <= at {
				next[i]++
			}
			for next[i] < len(s.VMAs) && s.VMAs[next[i]].Start < at+length {
				at = (s.VMAs[next[i]].End + mask) &^ mask
				next[i]++
				moved = true
			}
		}
		if end := p.Tree.Arch.UserEnd(); at+length > end || at+length < at {
			return snapshot.Range{}, fmt.Errorf("the mappings in mm-*.img leave no %d bytes in a row free in all of them, which a restore needs to work in", length)
		}
	}
	return snapshot.Range{Start: at, End: at + length}, nil
}
