//go:build amd64

package pages

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/stub"
	"stasis.example/image"
	"stasis.example/internal/linux"
)

// A gang is processes that put pages in place through the userfaultfd, straight from the image, of which each maps a window at a
// time: the process itself, and as many that only serve for that as there are other processors. Pages are copied once so, not twice as
// by who reads them first. Threads of ours could do it too, but what they map counts as our memory, and whenever one unmaps a window the
// processors of the others have to be told. What cannot be done in this way is left to the team.
type gang struct {
	movers []*mover
	asked  bool   // whether the first can
	not    bool   // it cannot be done, or not any more
	left   uint64 // bytes that have not been given to a mover
	next   []job  // for one that will be idle
	copies int    // pieces of them
}

// A mover is one of them.
type mover struct {
	process *stub.Process
	spare   bool   // not the process that gets the pages
	window  uint64 // where it maps images, 0 for nowhere yet
	done    int    // our end of a pipe that it writes to at the end of a job, 0 for none

	// Files there: we, the userfaultfd, its end of the pipe, images by our numbers; and all of them.
	pidfd, uffd, bell uint64
	images            map[uintptr]uint64
	files             []uint64

	jobs      []job // that it is at
	calls     []stub.Call
	arguments []byte
}

const (
	windowBytes = jobBytes
	// aroundBytes is how much the kernel maps of what is in memory when one page of it is asked for (fault_around_bytes).
	aroundBytes = 64 << 10
	// copyArgument is the size of a struct uffdio_copy.
	copyArgument = 40
	// spareFrom is how many bytes have to be left for it to be worth to start another process.
	spareFrom = 8 << 20
	// atOnce is how many jobs a mover gets at once: between them it waits for us. They are cut into maxCopies pieces at most, so that
	// the calls that they take fit into a table; a single one has up to jobBytes/Size.
	atOnce    = 4
	maxCopies = 800
)

// take takes a job, and reports false if others have to do it.
func (g *gang) take(f *Filler, j *job) (bool, error) {
	if g.not || !suits(j) {
		return false, nil
	}
	if !g.asked {
		g.asked, g.left = true, f.Expect
		if err := g.add(f, f.Process); err != nil || g.not {
			return false, err
		}
	}
	if g.copies+len(j.pieces) > maxCopies {
		if err := g.start(f); err != nil {
			return true, err
		}
	}
	g.next, g.copies = append(g.next, *j), g.copies+len(j.pieces)
	// Towards the end they get less, so that all end at once.
	if most := g.left / jobBytes / uint64(2*teamSize()); uint64(len(g.next)) < min(most, atOnce) {
		return true, nil
	}
	return true, g.start(f)
}

// start gives the next jobs to a mover, as soon as one is idle.
func (g *gang) start(f *Filler) error {
	jobs := g.next
	g.next, g.copies = nil, 0
	m, err := g.idle(f)
	if err != nil {
		return err
	}
	for i := range jobs {
		g.left -= min(g.left, jobs[i].bytes)
	}
	if ok, err := m.begin(jobs); ok || err != nil {
		return err
	}
	g.not = true
	return f.doAll(jobs)
}

// suits reports whether a job can be done so: through the userfaultfd, from within the file. Of a page that the file ends in, a mapping
// shows zeros beyond, where who reads is told.
func suits(j *job) bool {
	if j.pieces[0].lane != laneUFFD || j.offset%Size != 0 { // all pieces are, or none: see full
		return false
	}
	_, real := image.FD(j.file)
	info, err := j.file.Stat()
	return real && err == nil && info.Size() >= j.offset+int64(j.bytes)
}

// idle returns a mover that has nothing to do, as soon as there is one.
func (g *gang) idle(f *Filler) (*mover, error) {
	for {
		for _, m := range g.movers {
			if m.jobs == nil {
				return m, nil
			}
		}
		if len(g.movers) < teamSize() && g.left >= spareFrom && !g.not {
			if err := g.addSpare(f); err != nil {
				return nil, err
			}
			continue
		}
		if err := g.await(f); err != nil {
			return nil, err
		}
	}
}

// addSpare starts a process that has nothing but the program. Where none may be started there is none.
func (g *gang) addSpare(f *Filler) error {
	p, err := stub.Start(f.Process.Tracer(), &stub.Layout{Area: f.Process.Layout().Area})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) {
		g.left = 0
		return nil
	}
	if err != nil {
		return err
	}
	return g.add(f, p)
}

// add makes a process a mover. One that may not take files from us cannot be one.
func (g *gang) add(f *Filler, p *stub.Process) error {
	m := &mover{process: p, spare: p != f.Process, images: make(map[uintptr]uint64)}
	g.movers = append(g.movers, m)
	ok, err := m.equip(f)
	g.not = g.not || !ok
	return err
}

// equip gives a mover what it needs, and reports false where that cannot be had: there is another way, whatever the reason.
func (m *mover) equip(f *Filler) (bool, error) {
	calls := []stub.Call{
		stub.NewCall(unix.SYS_PIDFD_OPEN, uint64(os.Getpid())),
		stub.NewCall(unix.SYS_MMAP, 0, windowBytes, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, ^uint64(0), 0),
	}
	if err := m.process.Run(calls); err != nil {
		return false, err
	}
	if calls[0].Err() == nil {
		m.pidfd, m.files = calls[0].Ret, append(m.files, calls[0].Ret)
	}
	if calls[1].Err() == nil {
		m.window = calls[1].Ret
	}
	var pipe [2]int
	if remote.Must(calls) != nil || unix.Pipe2(pipe[:], unix.O_CLOEXEC) != nil {
		return false, nil
	}
	m.done = pipe[0]
	var ok bool
	var err error
	m.bell, ok, err = m.take(pipe[1])
	_ = unix.Close(pipe[1]) // there is only its own: the pipe ends when it dies
	if !ok || !m.spare {
		m.uffd = f.uffd.theirs
		return ok, err
	}
	m.uffd, ok, err = m.take(f.uffd.fd)
	return ok, err
}

// take has the process take a file from us, and reports false where that is not allowed.
func (m *mover) take(ours int) (theirs uint64, ok bool, err error) {
	calls := []stub.Call{stub.NewCall(unix.SYS_PIDFD_GETFD, m.pidfd, uint64(ours), 0)}
	if err := m.process.Run(calls); err != nil || calls[0].Err() != nil {
		return 0, false, err
	}
	m.files = append(m.files, calls[0].Ret)
	return calls[0].Ret, true, nil
}

// image returns the number of an image in the process.
func (m *mover) image(file image.File) (theirs uint64, ok bool, err error) {
	ours, _ := image.FD(file)
	if theirs, ok = m.images[ours]; ok {
		return theirs, true, nil
	}
	if theirs, ok, err = m.take(int(ours)); ok {
		m.images[ours] = theirs
	}
	return theirs, ok, err
}

// begin begins jobs, or reports false where it cannot.
func (m *mover) begin(jobs []job) (bool, error) {
	calls, arguments := m.calls[:0], m.arguments[:0] // to be used again
	at := m.process.Arguments()
	for i := range jobs {
		j := &jobs[i]
		fd, ok, err := m.image(j.file)
		if err != nil || !ok {
			return false, err
		}
		calls = append(calls,
			stub.NewCall(unix.SYS_MMAP, m.window, j.bytes, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED, fd, uint64(j.offset)),
			// Read ahead, and do not keep in memory what was looked at here.
			stub.NewCall(unix.SYS_MADVISE, m.window, j.bytes, unix.MADV_SEQUENTIAL))
		// A copy looks for pages that are mapped first, and has to begin anew for each that is not. Where the kernel cannot be
		// asked to map them (before 5.14), that is what it does.
		for skip := uint64(0); skip < j.bytes; skip += aroundBytes - (m.window+skip)%aroundBytes {
			calls = append(calls, stub.NewCall(unix.SYS_MADVISE, m.window+skip, Size, unix.MADV_POPULATE_READ))
		}
		source := m.window
		for _, p := range j.pieces {
			calls = append(calls, stub.NewCall(unix.SYS_IOCTL, m.uffd, linux.UFFDIOCopy, at+uint64(len(arguments))))
			for _, v := range [copyArgument / 8]uint64{p.addr, source, p.length} {
				arguments = binary.LittleEndian.AppendUint64(arguments, v)
			}
			source += p.length
		}
	}
	calls = append(calls, stub.NewCall(unix.SYS_WRITE, m.bell, at, 1))
	if err := m.process.Write(at, arguments); err != nil {
		return false, err
	}
	m.jobs, m.calls, m.arguments = jobs, calls, arguments
	return true, m.process.Begin(calls)
}

// await waits until a mover has done its job. When the context of the tracer has ended, or it takes unusually long, it waits for all,
// in the way in which any call is waited for.
func (g *gang) await(f *Filler) error {
	const patience = 1000 // ms
	var busy []*mover
	var fds []unix.PollFd
	for _, m := range g.movers {
		if m.jobs != nil {
			busy, fds = append(busy, m), append(fds, unix.PollFd{Fd: int32(m.done), Events: unix.POLLIN})
		}
	}
	fds = append(fds, unix.PollFd{Fd: int32(f.Process.Tracer().WakeFD()), Events: unix.POLLIN})
	n, err := unix.Poll(fds, patience)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("poll", err)
	}
	all := n == 0 || fds[len(busy)].Revents != 0
	for i, m := range busy {
		if all || fds[i].Revents != 0 {
			if err := g.end(f, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// end takes up a mover that is at the end of its jobs. What it could not do is done here.
func (g *gang) end(f *Filler, m *mover) error {
	jobs := m.jobs
	m.jobs = nil
	if err := m.process.End(m.calls); err != nil {
		return err
	}
	if remote.Must(m.calls[len(m.calls)-1:]) == nil {
		if _, err := unix.Read(m.done, make([]byte, 1)); err != nil {
			return os.NewSyscallError("read", err)
		}
	}
	for i := range m.calls {
		if c := &m.calls[i]; c.Err() != nil && c.Nr != unix.SYS_MADVISE {
			g.not = true // a file that cannot be mapped, or one that has become shorter
			return f.doAll(jobs)
		}
	}
	return nil
}

// finish waits until all jobs are done.
func (g *gang) finish(f *Filler) error {
	if len(g.next) > 0 {
		if err := g.start(f); err != nil {
			return err
		}
	}
	for slices.ContainsFunc(g.movers, func(m *mover) bool { return m.jobs != nil }) {
		if err := g.await(f); err != nil {
			return err
		}
	}
	return nil
}

// close ends the processes that only served, and takes back what the other has for this, if it is to go on.
func (g *gang) close(there bool) error {
	var errs []error
	for _, m := range g.movers {
		if m.done > 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(m.done)))
		}
		if m.spare {
			errs = append(errs, m.process.Destroy())
		} else if there {
			errs = append(errs, m.clear())
		}
	}
	g.movers, g.not = nil, true
	return errors.Join(errs...)
}

// clear takes back what a process has.
func (m *mover) clear() error {
	var calls []stub.Call
	if m.window != 0 {
		calls = append(calls, stub.NewCall(unix.SYS_MUNMAP, m.window, windowBytes))
	}
	for _, fd := range m.files {
		calls = append(calls, stub.NewCall(unix.SYS_CLOSE, fd))
	}
	if err := m.process.Run(calls); err != nil {
		return err
	}
	return remote.Must(calls)
}
