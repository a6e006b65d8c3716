//go:build amd64

package pipes

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the ends of pipes and fifos, and copies what is in them.
func Collect(t *collect.Tree) error {
	c := collector{tree: t, ids: make(map[inode]snapshot.PipeID), ends: make(map[snapshot.PipeID]*pipe)}
	// Pipes first: their numbers are not ours to choose.
	for _, fifos := range []bool{false, true} {
		for _, f := range t.Files.All {
			if pipe := strings.HasPrefix(f.Link, "pipe:["); f.Object != nil || f.FD < 0 || pipe == fifos || fifos && f.Node == nil {
				continue
			}
			if err := c.claim(f, fifos); err != nil {
				return fmt.Errorf("%s: %w", f.Where(), err)
			}
		}
	}
	for _, id := range c.order {
		p := c.ends[id]
		data, packets, err := content(p.reader)
		if err != nil {
			return fmt.Errorf("%s: %w", p.reader.Where(), err)
		}
		p.Data = data
		if p.packets || len(packets) > 1 {
			p.Packets = packets
		}
		t.Snapshot.Pipes = append(t.Snapshot.Pipes, &p.Pipe)
	}
	return nil
}

type collector struct {
	tree  *collect.Tree
	ids   map[inode]snapshot.PipeID
	ends  map[snapshot.PipeID]*pipe
	order []snapshot.PipeID
}

// An inode is a pipe or a fifo for the kernel.
type inode struct{ dev, ino uint64 }

type pipe struct {
	snapshot.Pipe
	reader  *collect.File // any of its ends that can be read, else any
	packets bool          // an end of it is in packet mode
}

func (c *collector) claim(f *collect.File, fifo bool) error {
	fd, err := f.Take()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil
	}
	id, ok := c.ids[inode{st.Dev, st.Ino}]
	if !ok {
		id = c.number(st.Ino)
		c.ids[inode{st.Dev, st.Ino}] = id
		size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
		if err != nil {
			return fmt.Errorf("fcntl(F_GETPIPE_SZ): %w", err)
		}
		c.ends[id] = &pipe{Pipe: snapshot.Pipe{ID: id, FIFO: fifo, Capacity: uint32(size)}, reader: f}
		c.order = append(c.order, id)
	}
	if f.Flags&unix.O_ACCMODE == unix.O_RDONLY {
		c.ends[id].reader = f
	}
	if f.Flags&unix.O_DIRECT != 0 {
		c.ends[id].packets = true
	}
	if fifo {
		f.Object = &snapshot.FIFOEnd{Pipe: id, Node: f.Node.ID}
		return nil
	}
	f.Object = &snapshot.PipeEnd{Pipe: id}
	return nil
}

// number chooses the number of a pipe: that of its inode, by which people know it: as in "pipe:[4711]", which --inherit-fd takes.
// Numbers of images have 32 bits; an inode of a fifo may have more, or be a pipe's too.
func (c *collector) number(ino uint64) snapshot.PipeID {
	id := snapshot.PipeID(ino)
	for c.ends[id] != nil || id == 0 {
		id++
	}
	return id
}

// content copies what is in a pipe and takes nothing out. tee(2) gives references to the pipe's pages, and does not move bytes.
// A read ends where a packet ends: the lengths of reads are those of packets, if it has any.
func content(f *collect.File) (data []byte, reads []uint32, err error) {
	fd, err := readable(f)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("fcntl(F_GETPIPE_SZ): %w", err)
	}
	var ours [2]int
	if err := unix.Pipe2(ours[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, fmt.Errorf("pipe2: %w", err)
	}
	defer unix.Close(ours[0])
	defer unix.Close(ours[1])
	if _, err := unix.FcntlInt(uintptr(ours[1]), unix.F_SETPIPE_SZ, size); err != nil {
		return nil, nil, fmt.Errorf("fcntl(F_SETPIPE_SZ, %d): %w", size, err)
	}
	n, err := unix.Tee(fd, ours[1], size, unix.SPLICE_F_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("tee: %w", err)
	}
	data = make([]byte, n)
	for got := 0; got < len(data); {
		m, err := unix.Read(ours[0], data[got:])
		if err != nil {
			return nil, nil, fmt.Errorf("read what tee gave: %w", err)
		}
		got += m
		reads = append(reads, uint32(m))
	}
	return data, reads, nil
}

// readable opens the pipe of which f is an end for reading. An end of ours, without a reader's rights to be told of the end of
// the data, is no new reader to those who write: they stand still.
func readable(f *collect.File) (int, error) {
	if f.Flags&unix.O_ACCMODE != unix.O_WRONLY {
		return f.Take()
	}
	fd, err := unix.Open(f.Path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", f.Path, err)
	}
	return fd, nil
}
