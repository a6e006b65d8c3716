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
// On tmpfs the process writes its pages from the first on, and we copy from the last on, until they meet. A file system lets
// only one write to a file at a time, but whoever maps a file in memory may fill its pages meanwhile, and it is those that
// cost most: they have to be found and made.
//
// On a disk a page that is filled through a mapping costs more than it gains. There two of us read a little at a time, which
// stays in the processor's cache, and write that: the time for which each keeps the other from writing is the shortest so.

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

// mostAtOnce is how many vectors the process is given at once.
const mostAtOnce = 8

// itself lets the process write.
func (c *Copier) itself(fd uint64, work *work) error {
	addr, room := c.Process.Data()
	n := min(mostAtOnce, int(room/(partBytes*maxParts)))
	for some := work.front(n); len(some) > 0; some = work.front(n) {
		var table []byte
		calls := make([]remote.Call, len(some))
		for i := range some {
			v := &some[i]
			calls[i] = remote.NewCall(unix.SYS_PWRITEV, fd, addr+uint64(len(table)), uint64(v.parts), uint64(v.offset), 0)
			c.parts = c.rest.parts(c.parts[:0], v)
			for _, part := range c.parts {
				table = binary.LittleEndian.AppendUint64(table, uint64(part.Base))
				table = binary.LittleEndian.AppendUint64(table, uint64(part.Len))
			}
		}
		if err := c.Process.Write(addr, table); err != nil {
			return err
		}
		done, err := c.Process.RunBulk(calls)
		if err != nil {
			return err
		}
		for i := range done {
			if err := c.finish(&some[i], &calls[i]); err != nil {
				return err
			}
		}
		if done < len(calls) {
			return fmt.Errorf("process %d wrote %d of %d vectors of pages", c.Process.PID, done, len(calls))
		}
	}
	return nil
}

// finish writes from outside what the process has not written: all of a vector after an error, the end of it when the disk was
// full. The error that matters comes up then.
func (c *Copier) finish(v *vector, call *remote.Call) error {
	done := call.Ret
	if call.Err() != nil {
		done = 0
	}
	if done >= v.bytes {
		return nil
	}
	return c.copy(&c.rest, v, done, false)
}

// helpFrom is how many vectors have to be left for a second pair of hands.
const helpFrom = 4

// help copies from the back, and sends an error or nil when nothing is left.
func (c *Copier) help(fd int, work *work) <-chan error {
	done := make(chan error, 1)
	if len(work.all) < helpFrom || unix.Ftruncate(fd, c.end) != nil {
		done <- nil
		return done
	}
	h := helper{fd: fd, copier: c, window: windowSize}
	go func() { done <- h.run(work) }()
	return done
}

// twice copies to a disk.
func (c *Copier) twice(fd int, work *work) error {
	if err := reserve(fd, c.end); err != nil {
		return fmt.Errorf("room for %d bytes of pages: %w", c.end, err)
	}
	first, second := helper{copier: c, window: diskPortion}, helper{copier: c, window: diskPortion}
	done := make(chan error, 1)
	go func() { done <- first.run(work) }()
	err := second.run(work)
	return errors.Join(err, <-done)
}

// reserve makes a file as long as it will be. Where the file system can, it finds the room for it at once, which makes the
// writes cheaper and shows that a disk is full before anything is copied.
func reserve(fd int, size int64) error {
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

// A helper copies a window at a time to a file, which it maps where it has a descriptor for that. It never touches the window
// itself: only the kernel does, whose calls fail where there is no room. What cannot be mapped is written.
type helper struct {
	fd     int // 0 for none
	window int
	copier *Copier
	parts  []unix.RemoteIovec
	cutter cutter
	buf    []byte
}

// windowSize is small enough for it not to count in what we have of memory.
const windowSize = 1 << 20

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
	h.cutter.left = h.parts
	for offset := v.offset; ; {
		parts, n := h.cutter.next(h.window)
		if n == 0 {
			return nil
		}
		if err := h.move(parts, n, offset); err != nil {
			return err
		}
		offset += int64(n)
	}
}

func (h *helper) move(parts []unix.RemoteIovec, n int, offset int64) error {
	process := h.copier.Process
	if h.fd > 0 {
		window, err := unix.Mmap(h.fd, offset, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err == nil {
			err = errors.Join(process.ReadParts(parts, window), unix.Munmap(window))
		}
		if err == nil {
			return nil
		}
	}
	if h.buf == nil {
		h.buf = make([]byte, h.window)
	}
	if err := process.ReadParts(parts, h.buf[:n]); err != nil {
		return err
	}
	_, err := h.copier.Sink.WriteAt(h.buf[:n], offset)
	return err
}
