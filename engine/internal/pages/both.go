//go:build amd64

package pages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
)

// Both processors move memory.
//
// The process writes its pages from the first on, and we copy from the last on, until they meet. A file system lets only one
// write to a file at a time, but whoever maps a file may fill its pages meanwhile: in memory by a userfaultfd (shadow.go), on a
// disk by huge pages.

// work is what is left to be moved.
type work struct {
	mu  sync.Mutex
	all []vector
}

// front takes at most n vectors from the front, and from a small rest only some: both should end at once.
func (w *work) front(n int) []vector {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = min(n, (len(w.all)+sharing-1)/sharing)
	some := w.all[:n]
	w.all = w.all[n:]
	return some
}

// sharing is the part of the rest that the process takes on at once.
const sharing = 4

// back takes a vector from the back.
func (w *work) back() *vector {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) == 0 {
		return nil
	}
	v := &w.all[len(w.all)-1]
	w.all = w.all[:len(w.all)-1]
	return v
}

// stop leaves nothing to be done.
func (w *work) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = nil
}

// itself lets the process write, a portion by each call.
func (c *Copier) itself(fd uint64, work *work, portion int) error {
	addr, room := c.Process.Data()
	n := int(room / (partBytes * (maxParts + chunk/diskPortion))) // vectors whose tables fit, however they are cut
	for some := work.front(n); len(some) > 0; some = work.front(n) {
		calls, table := c.writes(fd, addr, some, portion)
		if err := c.Process.Write(addr, table); err != nil {
			return err
		}
		done, err := c.Process.RunBulk(calls)
		if err != nil {
			return err
		}
		if done < len(calls) {
			return fmt.Errorf("process %d made %d of %d writes of pages", c.Process.PID, done, len(calls))
		}
		for i := range some {
			if calls, err = c.finish(&some[i], calls, portion); err != nil {
				return err
			}
		}
	}
	return nil
}

// writes returns the calls that write vectors, a portion each, and the table of memory which they share at an address.
func (c *Copier) writes(fd, addr uint64, some []vector, portion int) ([]remote.Call, []byte) {
	calls, table := c.calls[:0], c.table[:0]
	for i := range some {
		c.parts = c.rest.parts(c.parts[:0], &some[i])
		c.cutter.left = c.parts
		offset := uint64(some[i].offset)
		for parts, n := c.cutter.next(portion); n > 0; parts, n = c.cutter.next(portion) {
			calls = append(calls, remote.NewCall(unix.SYS_PWRITEV, fd, addr+uint64(len(table)), uint64(len(parts)), offset, 0))
			for _, part := range parts {
				table = binary.LittleEndian.AppendUint64(table, uint64(part.Base))
				table = binary.LittleEndian.AppendUint64(table, uint64(part.Len))
			}
			offset += uint64(n)
		}
	}
	c.calls, c.table = calls, table // to be used again
	return calls, table
}

// finish writes from outside what the process has not written of a vector, from the first call on that wrote too little: the
// disk was full. The error that matters comes up then. It returns the calls of the other vectors.
func (c *Copier) finish(v *vector, calls []remote.Call, portion int) ([]remote.Call, error) {
	done := uint64(0)
	for asked := uint64(0); asked < v.bytes; asked += uint64(portion) {
		if done == asked && calls[0].Err() == nil {
			done += calls[0].Ret
		}
		calls = calls[1:]
	}
	if done >= v.bytes {
		return calls, nil
	}
	return calls, c.copy(&c.rest, v, done, false)
}

// helpFrom is how many vectors have to be left for a second pair of hands.
const helpFrom = 4

// Large reports whether what is left to be copied late is enough for both processors.
func (c *Copier) Large() bool { return len(c.rest.all) >= helpFrom }

// help copies from the back, and sends an error or nil when nothing is left.
func (c *Copier) help(fd int, memory bool, work *work) <-chan error {
	done := make(chan error, 1)
	if len(work.all) < helpFrom {
		done <- nil
		return done
	}
	h := helper{fd: fd, copier: c}
	go func() {
		if memory {
			h.shadow = newShadow(c.Kernel, fd, c.end)
		}
		done <- errors.Join(h.run(work), h.shadow.Close())
	}()
	return done
}

// reserve makes a file as long as it will be. A disk finds the room for it at once where it can, which makes the writes cheaper
// and shows that it is full before anything is copied. In memory the room would be looked for twice.
func reserve(fd int, size int64, memory bool) error {
	if memory {
		return unix.Ftruncate(fd, size)
	}
	errno := unix.EINTR
	for errno == unix.EINTR {
		errno, _ = unix.Fallocate(fd, 0, 0, size).(unix.Errno)
	}
	switch errno {
	case 0:
		return nil
	case unix.EOPNOTSUPP, unix.ENOSYS:
		return unix.Ftruncate(fd, size)
	}
	return errno
}

// A helper copies to a file: into its shadow, or else through a mapping, which it never touches itself: only the kernel does, whose calls
// fail where there is no room. What can be put there in neither way is written.
type helper struct {
	fd     int
	copier *Copier
	shadow *shadow // nil where there is none
	parts  []unix.RemoteIovec
	cutter cutter
	again  cutter
	buf    []byte
}

const (
	// helperBuffer is small enough to stay in the processor's cache, and not to count in what we have of memory.
	helperBuffer = 256 << 10

	// hugePage is how much of a file one entry of the page tables can map, if the file has it in one piece of memory.
	hugePage = 2 << 20
)

// run copies from the back, until nothing is left or the dump is to end.
func (h *helper) run(work *work) error {
	ctx := h.copier.Process.Threads[0].Tracer().Context()
	for v := work.back(); v != nil; v = work.back() {
		err := ctx.Err()
		if err == nil {
			err = h.copy(v)
		}
		if err != nil {
			work.stop()
			return err
		}
	}
	return nil
}

func (h *helper) copy(v *vector) error {
	h.parts = h.copier.rest.parts(h.parts[:0], v)
	if h.shadow != nil {
		return h.buffered(h.parts, v.offset, h.toShadow)
	}
	h.cutter.left = h.parts
	for offset := v.offset; ; {
		parts, n := h.cutter.next(hugePage - int(offset%hugePage))
		if n == 0 {
			return nil
		}
		if h.through(parts, n, offset) != nil {
			if err := h.buffered(parts, offset, h.toFile); err != nil {
				return err
			}
		}
		offset += int64(n)
	}
}

// buffered copies by a buffer.
func (h *helper) buffered(parts []unix.RemoteIovec, offset int64, to func(p []byte, offset int64) error) error {
	if h.buf == nil {
		h.buf = make([]byte, helperBuffer)
	}
	h.again.left = parts
	for {
		some, n := h.again.next(len(h.buf))
		if n == 0 {
			return nil
		}
		if err := h.copier.Process.ReadParts(some, h.buf[:n]); err != nil {
			return err
		}
		if err := to(h.buf[:n], offset); err != nil {
			return err
		}
		offset += int64(n)
	}
}

func (h *helper) toShadow(p []byte, offset int64) error {
	if _, err := h.shadow.WriteAt(p, offset); err != nil {
		return h.toFile(p, offset)
	}
	return nil
}

func (h *helper) toFile(p []byte, offset int64) error {
	_, err := h.copier.Sink.WriteAt(p, offset)
	return err
}

// through copies through a mapping of the huge page that an offset is in. Where the file system can (ext4 since Linux 6.16, XFS since
// 5.18), MADV_HUGEPAGE makes that one piece of memory, which one page fault makes writable instead of 512: a third of what comes in.
func (h *helper) through(parts []unix.RemoteIovec, n int, offset int64) error {
	within := offset % hugePage
	// Such a file system finds an address for it that a huge page can have.
	window, err := unix.Mmap(h.fd, offset-within, hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	_ = unix.Madvise(window, unix.MADV_HUGEPAGE) // else it goes page by page
	return errors.Join(h.copier.Process.ReadParts(parts, window[within:within+int64(n)]), unix.Munmap(window))
}
