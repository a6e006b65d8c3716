//go:build amd64

package pages

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
)

// A Copier takes the pages of one process to a sink. Small processes are read from outside, before anything of ours is in
// them. Of large ones both processors take the pages, from either end.
type Copier struct {
	Kernel  *linux.Kernel
	Process *remote.Process
	Sink    Sink
	// NotItself says that the process must not write its pages: it may write no large files, or not to ours.
	NotItself bool
	// Buffer is for what is copied from outside. Copiers that never copy at once may have one together.
	Buffer *Buffer

	mem    *os.File
	early  vectors // of pages that have to be taken before the process is entered
	forced vectors // of pages that the process itself may not read
	rest   vectors
	end    int64 // of the sink
	parts  []unix.RemoteIovec
	cutter cutter
	calls  []remote.Call
	table  []byte

	// Written counts the pages.
	Written uint64
}

// itselfFrom is how many bytes a process has to have for it to be worth that it writes them.
const itselfFrom = 4 << 20

// Announce tells the sink that the pages of a run come. Runs are announced in ascending order.
func (c *Copier) Announce(r Run) error {
	page := c.Process.Disturbed()
	if r.Early || page < r.Start || page >= r.End {
		return c.announce(r)
	}
	// The page that entering a process disturbs.
	for _, part := range []Run{
		{Range: snapshot.Range{Start: r.Start, End: page}, Forced: r.Forced},
		{Range: snapshot.Range{Start: page, End: page + Size}, Forced: r.Forced, Early: true},
		{Range: snapshot.Range{Start: page + Size, End: r.End}, Forced: r.Forced},
	} {
		if part.Len() == 0 {
			continue
		}
		if err := c.announce(part); err != nil {
			return err
		}
	}
	return nil
}

func (c *Copier) announce(r Run) error {
	offset, err := c.Sink.Announce(r)
	if err != nil {
		return err
	}
	switch {
	case r.Forced:
		c.forced.add(r.Range, offset)
	case r.Early:
		c.early.add(r.Range, offset)
	default:
		c.rest.add(r.Range, offset)
	}
	c.Written += r.Len() / Size
	c.end = offset + int64(r.Len())
	return nil
}

// Early copies what has to be copied before the process is entered, and reports whether that was all.
func (c *Copier) Early() (all bool, err error) {
	defer func() { c.forced, c.early, c.parts, c.cutter = vectors{}, vectors{}, nil, cutter{} }()
	if err := c.outside(&c.forced, true); err != nil {
		return false, err
	}
	if err := c.outside(&c.early, false); err != nil {
		return false, err
	}
	if _, ok := c.Sink.FD(); ok && !c.NotItself && c.Written*Size >= itselfFrom {
		return false, nil
	}
	defer func() { c.rest = vectors{} }()
	return true, c.outside(&c.rest, false)
}

// outside copies from outside.
func (c *Copier) outside(list *vectors, forced bool) error {
	for i := range list.all {
		if err := c.copy(list, &list.all[i], 0, forced); err != nil {
			return err
		}
	}
	return nil
}

// copy copies a vector from outside, but for the first bytes.
func (c *Copier) copy(list *vectors, v *vector, skip uint64, forced bool) error {
	buf := c.Buffer.get(c.Written * Size)
	c.parts = list.parts(c.parts[:0], v)
	c.cutter.left = c.parts
	for offset := v.offset; ; {
		parts, n := c.cutter.next(len(buf))
		if n == 0 {
			return nil
		}
		// What was written of a bufferful is written once more.
		if skip >= uint64(n) {
			skip -= uint64(n)
			offset += int64(n)
			continue
		}
		skip = 0
		if err := c.read(parts, buf[:n], forced); err != nil {
			return err
		}
		if _, err := c.Sink.WriteAt(buf[:n], offset); err != nil {
			return err
		}
		offset += int64(n)
	}
}

func (c *Copier) read(parts []unix.RemoteIovec, buf []byte, forced bool) error {
	if !forced {
		return c.Process.ReadParts(parts, buf)
	}
	if c.mem == nil {
		var err error
		if c.mem, err = os.Open(fmt.Sprintf("/proc/%d/mem", c.Process.Live())); err != nil {
			return err
		}
	}
	for _, part := range parts {
		if _, err := c.mem.ReadAt(buf[:part.Len], int64(part.Base)); err != nil {
			return err
		}
		buf = buf[part.Len:]
	}
	return nil
}

// Late copies the rest, when the process was entered.
func (c *Copier) Late() error {
	if len(c.rest.all) == 0 {
		return nil
	}
	work := &work{all: c.rest.all}
	ours, _ := c.Sink.FD()
	memory := onTmpfs(int(ours))
	if err := reserve(int(ours), c.end, memory); err != nil {
		return fmt.Errorf("room for %d bytes of pages: %w", c.end, err)
	}
	portion := diskPortion
	if memory {
		portion = chunk // whose pages come one by one, whatever a call asks for
	}
	theirs, err := c.Process.GiveFile(int(ours))
	if errors.Is(err, unix.EMFILE) {
		return c.outside(&c.rest, false) // it has no room for one more
	}
	if err != nil {
		return err
	}
	helper := c.help(int(ours), memory, work)
	if err = c.itself(theirs, work, portion); err != nil {
		work.stop()
	}
	return errors.Join(err, <-helper, c.Process.TakeBack(theirs))
}

// Close lets go of what the copier holds. The sink is the caller's.
func (c *Copier) Close() error {
	if c.mem == nil {
		return nil
	}
	return c.mem.Close()
}
