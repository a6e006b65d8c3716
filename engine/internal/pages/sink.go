package pages

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/image"
)

// A Sink takes the pages of one address space. Runs are announced in ascending order before their pages are written.
type Sink interface {
	// Announce adds a run of pages, and returns where their content goes.
	Announce(r Run) (offset int64, err error)
	// WriteAt writes content.
	WriteAt(p []byte, offset int64) (int, error)
	// FD returns a descriptor that content can be written to, where there is one.
	FD() (fd uintptr, ok bool)
	// Close ends it. What was announced is only kept when Close has said so.
	Close() error
}

// dirSink keeps pages in an image directory.
type dirSink struct {
	pagemap *image.PagemapWriter
	pages   image.NewFile
	end     int64
}

// diskPortion is how much is written to a file on a disk by one call. The kernel makes as large a block of memory for it as it can, and
// larger blocks come from memory that may not have been in use for long: a virtual machine whose host takes free memory
// back (free page reporting) has to get each page of it anew. 1 GiB took 1.45 s of processor time in calls of 4 MiB there, 0.38
// in calls of 32 KiB. Where memory is warm, calls of 64 KiB cost least.
const diskPortion = 64 << 10

// onTmpfs tells whether a file is in memory only.
func onTmpfs(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.TMPFS_MAGIC
}

// NewDirSink makes the page map of a process, and the file of its pages, which has a number of its own.
func NewDirSink(d image.Dir, pid int, pagesID uint32) (Sink, error) {
	pagemap, err := image.CreatePagemap(d, image.Pagemap, uint64(pid), pagesID, Size)
	if err != nil {
		return nil, err
	}
	name := image.Pages.File(uint64(pagesID))
	f, err := d.Create(name)
	if err != nil {
		pagemap.Close()
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return &dirSink{pagemap: pagemap, pages: f}, nil
}

func (s *dirSink) Announce(r Run) (int64, error) {
	at := s.end
	s.end += int64(r.Len())
	return at, s.pagemap.Add(image.PageRun{Addr: r.Start, Pages: r.Len() / Size, Flags: image.PagePresent})
}

func (s *dirSink) WriteAt(p []byte, offset int64) (int, error) {
	written := 0
	for written < len(p) {
		n, err := s.pages.WriteAt(p[written:min(len(p), written+diskPortion)], offset+int64(written))
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (s *dirSink) FD() (uintptr, bool) { return image.FD(s.pages) }

func (s *dirSink) Close() error {
	err := s.pagemap.Close()
	if cerr := s.pages.Close(); err == nil {
		err = cerr
	}
	return err
}
