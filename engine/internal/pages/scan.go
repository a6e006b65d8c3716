// Package pages moves memory: it finds the pages of a process that have to be saved, and takes them to where they are kept.
package pages

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// Size is the size of a page on all machines that the package is for, in bytes.
const Size = 4096

// A Run is a run of pages of a process that are to be saved.
type Run struct {
	snapshot.Range
	// Forced says that the process itself may not read them: memory without PROT_READ.
	Forced bool
	// Early says that they have to be taken before anything of ours is in the process.
	Early bool
}

// A Scanner finds the pages of a process that have to be saved: those that it has written, wherever they are.
type Scanner struct {
	kernel  *linux.Kernel
	pagemap *os.File
	old     bool // without PAGEMAP_SCAN
	buffer  *Buffer
	zero    uint64 // the frame of the page of zeros, where old kernels show it; else 0

	// Scanned counts the pages that were looked at.
	Scanned uint64
}

// NewScanner opens a process's page map. Without newKernel, or on a kernel before 6.7, it is read word by word. Scanners that are
// not used at once may have one buffer together.
func NewScanner(k *linux.Kernel, pid int, newKernel bool, buffer *Buffer) (*Scanner, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	s := &Scanner{kernel: k, pagemap: f, old: !newKernel, buffer: buffer}
	if newKernel {
		has, err := k.HasPagemapScan()
		if err != nil {
			f.Close()
			return nil, err
		}
		s.old = has == linux.No
	}
	if s.old {
		s.zero, err = zeroFrame()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the page map.
func (s *Scanner) Close() error { return s.pagemap.Close() }

// Space finds the pages of an address space that have to be saved, in ascending order, and hands them over as runs.
func (s *Scanner) Space(space *snapshot.Space, found func(Run) error) error {
	g := gatherer{found: found}
	for left := space.VMAs; len(left) > 0; {
		v, n := snapshot.Joined(left, together)
		left = left[n:]
		switch v.Kind {
		case snapshot.VDSO:
			// The code of this kernel's is compared with that of the next.
			g.add(Run{Range: v.Range, Early: true})
		case snapshot.AnonPrivate, snapshot.FilePrivate:
			s.Scanned += v.Len() / Size
			forced := unreadable(&v)
			if err := s.private(&v, func(r snapshot.Range) { g.add(Run{Range: r, Forced: forced}) }); err != nil {
				return err
			}
		}
	}
	g.flush()
	return g.err
}

// together reports whether two mappings can be looked at as if they were one.
func together(v, next *snapshot.VMA) bool {
	return next.Kind == v.Kind && v.Kind != snapshot.VDSO && unreadable(next) == unreadable(v)
}

func unreadable(v *snapshot.VMA) bool { return v.Prot&unix.PROT_READ == 0 }

// A gatherer puts runs together that go on where the one before ends.
type gatherer struct {
	found func(Run) error
	last  Run
	err   error // the first
}

func (g *gatherer) add(r Run) {
	if g.last.End == r.Start && g.last.Forced == r.Forced && g.last.Early == r.Early {
		g.last.End = r.End
		return
	}
	g.flush()
	g.last = r
}

func (g *gatherer) flush() {
	if g.last.Len() > 0 && g.err == nil {
		g.err = g.found(g.last)
	}
	g.last = Run{}
}

// private finds the pages of its own that a private mapping has.
func (s *Scanner) private(v *snapshot.VMA, found func(snapshot.Range)) error {
	if s.old {
		return words(s.pagemap, v.Range, func(p proc.Page) bool {
			zeros := s.zero != 0 && p.Present() && p.PFN() == s.zero
			return (p.Present() || p.Swapped()) && !p.File() && !p.Guard() && !zeros
		}, found)
	}
	not := uint64(linux.PageZero | linux.PageGuard)
	if v.Kind != snapshot.AnonPrivate {
		not |= linux.PageFile // for which the kernel has to look at each page, and not only for where it is
	}
	return s.scan(v.Range, linux.PagemapScan{Inverted: not, CategoryMask: not, AnyOf: linux.PagePresent | linux.PageSwapped}, found)
}

// zeroFrame finds the page of zeros, which all have who read memory and never wrote it. It is 0 for who is not shown frames. (A huge
// one looks like a file's.)
func zeroFrame() (frame uint64, err error) {
	page, err := unix.Mmap(-1, 0, Size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("mmap: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(page)) }()
	if page[0] != 0 { // it is there from now on
		return 0, errors.New("new memory is not zero")
	}
	own, err := os.Open("/proc/self/pagemap")
	if errors.Is(err, fs.ErrPermission) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer own.Close()
	var word [8]byte
	var entry [1]proc.Page
	at := int64(reflect.ValueOf(page).Pointer()) / Size * int64(len(word))
	if _, err := own.ReadAt(word[:], at); err != nil {
		return 0, err
	}
	if _, err := proc.ParsePages(word[:], entry[:]); err != nil {
		return 0, err
	}
	if !entry[0].Present() || entry[0].File() {
		return 0, nil // a huge one
	}
	return entry[0].PFN(), nil
}

// scan runs PAGEMAP_SCAN over a range.
func (s *Scanner) scan(r snapshot.Range, scan linux.PagemapScan, found func(snapshot.Range)) error {
	regions := s.buffer.pageRegions()
	scan.Start, scan.End, scan.Regions = r.Start, r.End, regions
	for scan.Start < scan.End {
		n, err := s.kernel.PagemapScan(int(s.pagemap.Fd()), &scan)
		if err != nil {
			return fmt.Errorf("%#x-%#x of %s: %w", r.Start, r.End, s.pagemap.Name(), err)
		}
		for _, region := range regions[:n] {
			found(snapshot.Range{Start: region.Start, End: region.End})
		}
		if scan.WalkEnd <= scan.Start {
			return fmt.Errorf("%#x-%#x of %s: PAGEMAP_SCAN does not go on", r.Start, r.End, s.pagemap.Name())
		}
		scan.Start = scan.WalkEnd
	}
	return nil
}

// words reads the page map of a range, and finds the runs of pages that are wanted.
func words(pagemap *os.File, r snapshot.Range, wanted func(proc.Page) bool, found func(snapshot.Range)) error {
	const atOnce = 8192
	buf, pages := make([]byte, 8*atOnce), make([]proc.Page, atOnce)
	run := snapshot.Range{}
	for at := r.Start; at < r.End; {
		n := min((r.End-at)/Size, atOnce)
		got, err := pagemap.ReadAt(buf[:8*n], int64(at/Size*8))
		if got == 0 && err != nil {
			return fmt.Errorf("%#x-%#x of %s: %w", r.Start, r.End, pagemap.Name(), err)
		}
		count, err := proc.ParsePages(buf[:got], pages)
		if err != nil {
			return err
		}
		for _, p := range pages[:count] {
			switch {
			case !wanted(p):
			case run.End == at && run.Len() > 0:
				run.End += Size
			default:
				if run.Len() > 0 {
					found(run)
				}
				run = snapshot.Range{Start: at, End: at + Size}
			}
			at += Size
		}
	}
	if run.Len() > 0 {
		found(run)
	}
	return nil
}

// Guards finds the pages of a range that MADV_GUARD_INSTALL guards.
func Guards(k *linux.Kernel, pid int, r snapshot.Range) ([]snapshot.Range, error) {
	s, err := NewScanner(k, pid, true, nil)
	if err != nil {
		return nil, err
	}
	var guards []snapshot.Range
	found := func(g snapshot.Range) { guards = append(guards, g) }
	err = words(s.pagemap, r, proc.Page.Guard, found)
	return guards, errors.Join(err, s.Close())
}
