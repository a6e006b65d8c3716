//go:build amd64

package pipes

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// A Pipe is a pipe or a fifo that is being made. It has a reader and a writer of its own as long as ends are opened, so that
// none of them finds nobody at the other side; what processes find then is what they had.
type Pipe struct {
	reader, writer *apply.File // the same of a fifo
	open           func(flags uint32) (*apply.File, error)
	// spare says that pipe2's own end of that side was not handed out yet.
	spareReader, spareWriter bool
}

// Make makes a pipe with its content, nil for empty and of the usual capacity.
func Make(content *snapshot.Pipe) (*Pipe, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe2: %w", err)
	}
	p := &Pipe{reader: apply.NewFile(ends[0]), writer: apply.NewFile(ends[1]), spareReader: true, spareWriter: true}
	p.open = p.again
	return p, p.filled(content)
}

// MakeFIFO opens a fifo by a function that opens its name with flags, and fills it.
func MakeFIFO(open func(flags uint32) (*apply.File, error), content *snapshot.Pipe) (*Pipe, error) {
	f, err := open(unix.O_RDWR | unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	p := &Pipe{reader: f, writer: f, open: open}
	waiting, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
	if err == nil && waiting > 0 {
		err = fmt.Errorf("somebody else uses the fifo, and has written %d bytes to it", waiting)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, p.filled(content)
}

func (p *Pipe) filled(content *snapshot.Pipe) error {
	if content == nil {
		return nil
	}
	if err := p.fill(content); err != nil {
		p.Close()
		return err
	}
	return nil
}

// fill gives the pipe its capacity and then its content.
func (p *Pipe) fill(content *snapshot.Pipe) error {
	w := int(p.writer.Fd())
	size, err := unix.FcntlInt(uintptr(w), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return fmt.Errorf("fcntl(F_GETPIPE_SZ): %w", err)
	}
	want := int(content.Capacity)
	if want == 0 {
		want = max(size, len(content.Data))
	}
	if want != size {
		if _, err := unix.FcntlInt(uintptr(w), unix.F_SETPIPE_SZ, want); err != nil {
			return fmt.Errorf("a capacity of %d bytes (/proc/sys/fs/pipe-max-size): %w", want, err)
		}
	}
	if len(content.Data) == 0 {
		return nil
	}
	writes := content.Packets
	flags := uint32(unix.O_NONBLOCK | unix.O_DIRECT)
	if writes == nil {
		writes, flags = []uint32{uint32(len(content.Data))}, unix.O_NONBLOCK
	}
	if err := apply.SetFlags(w, flags); err != nil {
		return err
	}
	at := 0
	for _, n := range writes {
		if err := write(w, content.Data[at:at+int(n)]); err != nil {
			return fmt.Errorf("put %d bytes into it, of which %d are in it: %w", len(content.Data), at, err)
		}
		at += int(n)
	}
	return apply.SetFlags(w, 0)
}

func write(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		data = data[max(n, 0):]
	}
	return nil
}

// End opens an end with its flags. Every end is an open file of its own, as it was.
func (p *Pipe) End(flags uint32) (*apply.File, error) {
	f := p.spare(flags)
	if f == nil {
		var err error
		if f, err = p.open(flags &^ unix.O_DIRECT); err != nil {
			return nil, err
		}
	}
	if err := apply.SetFlags(int(f.Fd()), flags); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// largeFile is a flag that all files have that were opened by name, and that ends made by pipe2 do not have.
const largeFile = 0o100000

// spare returns one of the ends that pipe2 made, if it is the like of what is wanted and was not taken.
func (p *Pipe) spare(flags uint32) *apply.File {
	var end **apply.File
	switch {
	case flags&largeFile != 0:
		return nil
	case flags&unix.O_ACCMODE == unix.O_RDONLY && p.spareReader:
		end, p.spareReader = &p.reader, false
	case flags&unix.O_ACCMODE == unix.O_WRONLY && p.spareWriter:
		end, p.spareWriter = &p.writer, false
	default:
		return nil
	}
	// It stays open here too, by another number, until all ends are there.
	f := *end
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	*end = apply.NewFile(fd)
	return f
}

// again opens an end of a pipe that has no name.
func (p *Pipe) again(flags uint32) (*apply.File, error) {
	how := int(flags&(unix.O_ACCMODE|unix.O_NONBLOCK)) | unix.O_CLOEXEC
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", p.reader.Fd()), how, 0)
	if err != nil {
		return nil, fmt.Errorf("open an end of a pipe once more: %w", err)
	}
	return apply.NewFile(fd), nil
}

// Close gives up the ends that nobody has.
func (p *Pipe) Close() {
	_ = p.reader.Close()
	_ = p.writer.Close() // of a fifo closed already
}
