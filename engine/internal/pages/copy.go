//go:build amd64

package pages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/linux"
)

// A Copier takes the pages of one process to a sink. Small processes are read from outside, before anything of ours is in
// them. Large ones write their own pages, which copies each once and not twice.
type Copier struct {
	Kernel  *linux.Kernel
	Process *remote.Process
	Sink    Sink
	// NotItself says that the process must not write its pages: it may write no large files, or not to ours.
	NotItself bool

	mem   *os.File
	items []item
	buf   []byte

	// Written counts the pages.
	Written uint64
}

// item is a run with the place that it goes to.
type item struct {
	Run
	offset int64
}

// itselfFrom is how many bytes a process has to have for it to be worth that it writes them.
const itselfFrom = 4 << 20

// chunk is how much is moved by one call: while the process writes its own pages it looks between two calls whether we are there.
const chunk = 8 << 20

// Announce tells the sink which pages come.
func (c *Copier) Announce(runs []Run) error {
	for _, r := range split(runs, c.Process.Disturbed()) {
		offset, err := c.Sink.Announce(r)
		if err != nil {
			return err
		}
		c.items = append(c.items, item{r, offset})
		c.Written += r.Len() / Size
	}
	return nil
}

// split takes the page that entering a process disturbs out of the run that it is in: it is for early.
func split(runs []Run, page uint64) []Run {
	for i, r := range runs {
		if r.Early || page < r.Start || page >= r.End {
			continue
		}
		parts := make([]Run, 0, len(runs)+2)
		parts = append(parts, runs[:i]...)
		for _, part := range []Run{
			{Range: snapshot.Range{Start: r.Start, End: page}, Forced: r.Forced},
			{Range: snapshot.Range{Start: page, End: page + Size}, Forced: r.Forced, Early: true},
			{Range: snapshot.Range{Start: page + Size, End: r.End}, Forced: r.Forced},
		} {
			if part.Len() > 0 {
				parts = append(parts, part)
			}
		}
		return append(parts, runs[i+1:]...)
	}
	return runs
}

// Early copies what has to be copied before the process is entered.
func (c *Copier) Early() error {
	all := c.NotItself || c.Written*Size < itselfFrom
	if _, ok := c.Sink.FD(); !ok {
		all = true
	}
	var rest []item
	for _, it := range c.items {
		if !it.Early && !it.Forced && !all {
			rest = append(rest, it)
			continue
		}
		if err := c.outside(it); err != nil {
			return err
		}
	}
	c.items = rest
	return nil
}

// outside copies a run from outside.
func (c *Copier) outside(it item) error {
	if c.buf == nil {
		c.buf = make([]byte, min(1<<20, c.Written*Size))
	}
	for at := it.Start; at < it.End; {
		buf := c.buf[:min(uint64(len(c.buf)), it.End-at)]
		if err := c.read(at, buf, it.Forced); err != nil {
			return err
		}
		if _, err := c.Sink.WriteAt(buf, it.offset+int64(at-it.Start)); err != nil {
			return err
		}
		at += uint64(len(buf))
	}
	return nil
}

func (c *Copier) read(at uint64, buf []byte, forced bool) error {
	if !forced {
		return c.Process.Read(at, buf)
	}
	if c.mem == nil {
		var err error
		if c.mem, err = os.Open(fmt.Sprintf("/proc/%d/mem", c.Process.PID)); err != nil {
			return err
		}
	}
	_, err := c.mem.ReadAt(buf, int64(at))
	return err
}

// Late copies the rest, when the process was entered.
func (c *Copier) Late() error {
	if len(c.items) == 0 {
		return nil
	}
	ours, _ := c.Sink.FD()
	theirs, err := c.give(ours)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ESRCH) {
		// It may not look at us, or is in another pid namespace.
		for _, it := range c.items {
			if err := c.outside(it); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	err = c.itself(theirs)
	closing := []remote.Call{{Nr: unix.SYS_CLOSE, Slot: remote.FirstSlot + 1, Args: [6]uint64{theirs}}}
	return errors.Join(err, c.Process.Run(closing), remote.Must(closing))
}

// give gives the process a descriptor of ours, and returns its number there.
func (c *Copier) give(fd uintptr) (uint64, error) {
	open := []remote.Call{{Nr: unix.SYS_PIDFD_OPEN, Slot: remote.FirstSlot, Args: [6]uint64{uint64(os.Getpid())}}}
	if err := errors.Join(c.Process.Run(open), remote.Must(open)); err != nil {
		return 0, err
	}
	get := []remote.Call{
		{Nr: unix.SYS_PIDFD_GETFD, Slot: remote.FirstSlot + 1, Args: [6]uint64{open[0].Ret, uint64(fd)}},
		{Nr: unix.SYS_CLOSE, Slot: remote.FirstSlot, Args: [6]uint64{open[0].Ret}},
	}
	if err := errors.Join(c.Process.Run(get), remote.Must(get)); err != nil {
		return 0, err
	}
	return get[0].Ret, nil
}

// A vector of parts of memory that one call writes.
type vector struct {
	parts  []snapshot.Range
	offset int64
	bytes  uint64
}

const (
	maxParts  = 1024 // UIO_MAXIOV
	partBytes = 16   // of a struct iovec
)

// vectors gathers runs that follow each other in the sink, by calls of at most chunk bytes.
func (c *Copier) vectors() []vector {
	var all []vector
	for _, it := range c.items {
		for at := it.Start; at < it.End; {
			offset := it.offset + int64(at-it.Start)
			n := len(all) - 1
			if n < 0 || len(all[n].parts) == maxParts || all[n].bytes >= chunk || all[n].offset+int64(all[n].bytes) != offset {
				all = append(all, vector{offset: offset})
				n++
			}
			length := min(it.End-at, chunk-all[n].bytes)
			all[n].parts = append(all[n].parts, snapshot.Range{Start: at, End: at + length})
			all[n].bytes += length
			at += length
		}
	}
	return all
}

// itself lets the process write.
func (c *Copier) itself(fd uint64) error {
	addr, room := c.Process.Data()
	all := c.vectors()
	for len(all) > 0 {
		var table []byte
		var calls []remote.Call
		for _, v := range all {
			if uint64(len(table)+partBytes*len(v.parts)) > room {
				break
			}
			calls = append(calls, remote.NewCall(unix.SYS_PWRITEV, fd, addr+uint64(len(table)), uint64(len(v.parts)), uint64(v.offset), 0))
			for _, part := range v.parts {
				table = binary.LittleEndian.AppendUint64(table, part.Start)
				table = binary.LittleEndian.AppendUint64(table, part.Len())
			}
		}
		if err := c.Process.Write(addr, table); err != nil {
			return err
		}
		n, err := c.Process.RunBulk(calls)
		if err != nil {
			return err
		}
		if err := c.finish(all[:n], calls[:n]); err != nil {
			return err
		}
		if n < len(calls) {
			return fmt.Errorf("process %d wrote %d of %d vectors of pages", c.Process.PID, n, len(calls))
		}
		all = all[len(calls):]
	}
	return nil
}

// finish writes from outside what the process has not written: all of a vector after an error, the end of it when the disk was
// full. The error that matters comes up then.
func (c *Copier) finish(vectors []vector, calls []remote.Call) error {
	for i, v := range vectors {
		done := calls[i].Ret
		if calls[i].Err() != nil {
			done = 0
		}
		if done == v.bytes {
			continue
		}
		at := uint64(0)
		for _, part := range v.parts {
			skip := min(done-min(done, at), part.Len())
			rest := item{Run: Run{Range: snapshot.Range{Start: part.Start + skip, End: part.End}}, offset: v.offset + int64(at+skip)}
			if err := c.outside(rest); err != nil {
				return err
			}
			at += part.Len()
		}
	}
	return nil
}

// Close lets go of what the copier holds. The sink is the caller's.
func (c *Copier) Close() error {
	if c.mem == nil {
		return nil
	}
	return c.mem.Close()
}
