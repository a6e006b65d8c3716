//go:build amd64

package pages

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
	"stasis.example/image"
	"stasis.example/internal/linux"
)

// Fate is what becomes of pages of a process that is being made.
type Fate uint8

// The fates.
const (
	FillWrite Fate = iota + 1 // they are taken from a file
	FillKeep                  // they stay what they were when the process was forked
	FillDrop                  // they came with the fork, and are given back
)

// A FillRun is pages that have one fate and, if they are to be written, are in one place.
type FillRun struct {
	snapshot.Range
	Fate   Fate
	File   image.File // of FillWrite: open until Finish
	Offset int64      // of FillWrite: of the first page in File
}

// A Filler gives one process its pages: the other direction of a [Copier]. Its mappings are there, with the protection that they
// are made with. Runs are given to Add in ascending order; Finish comes after the last. The process and the tracer that
// holds it are used by these two alone, on whose goroutine they are called.
//
// What a small process has is read and written by a call or two each. Where there is much, pages that are of no file are put in
// place through a userfaultfd, by several processes or goroutines: that spares the page faults, and clearing what is then written
// over. Memory that the process itself may not write is written by force.
type Filler struct {
	Kernel  *linux.Kernel
	Process *stub.Process
	Space   *snapshot.Space
	// Expect is about how many bytes come.
	Expect uint64
	// Inherited are the ranges, ascending, that have pages from the process which forked this one.
	Inherited []snapshot.Range
	// Buffer is for what is read and written by this goroutine. Fillers that are not used at once may have one together; nil will do.
	Buffer *Buffer
	// NoUserfaultfd says to do without.
	NoUserfaultfd bool

	// Written counts the pages that were written, Dropped those that were given back.
	Written, Dropped uint64

	vma   int  // where the search goes on
	lane  lane // of that mapping
	known bool // it is found out

	next  job
	drops []stub.Call
	mem   *os.File // /proc/PID/mem
	huge  hugePages
	uffd  uffd
	gang  gang
	team  *team
}

const (
	// manyFrom is how many bytes a process has to have for it to be worth that others help.
	manyFrom = 4 << 20
	// jobBytes is how much one does at a time, and bufferBytes how much of it is read by one call: it is in the processor's cache
	// still when it is written. Larger buffers cost a tenth more.
	jobBytes    = hugeSize
	bufferBytes = 128 << 10
	maxTeam     = 4
)

// lane is how pages get into a mapping.
type lane uint8

const (
	laneWrite lane = iota + 1 // as the process itself could write them
	laneHuge                  // likewise, each huge page by one call, since the first to touch it gets all of it
	laneForce                 // whatever its protection
	laneUFFD                  // through a userfaultfd
)

// piece is a part of a job: memory that is filled in one way. What goes through a userfaultfd is of one mapping.
type piece struct {
	addr, length uint64
	lane         lane
}

// job is pieces that follow each other in a file.
type job struct {
	file   image.File
	offset int64
	bytes  uint64
	pieces []piece
	forced bool // some of it is for the tracer to write
}

// Add takes the next run.
func (f *Filler) Add(run FillRun) error {
	switch run.Fate {
	case FillKeep:
		return nil
	case FillDrop:
		f.Dropped += run.Len() / Size
		f.drops = append(f.drops, stub.NewCall(unix.SYS_MADVISE, run.Start, run.Len(), unix.MADV_DONTNEED))
		return nil
	case FillWrite:
	default:
		return fmt.Errorf("pages at %#x have the fate %d, which is none", run.Start, run.Fate)
	}
	for at := run.Start; at < run.End; {
		v, err := f.mapping(at)
		if err != nil {
			return err
		}
		end := min(run.End, v.End)
		if err := f.take(run.File, run.Offset+int64(at-run.Start), snapshot.Range{Start: at, End: end}); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// mapping finds the mapping that has an address, and how it is filled.
func (f *Filler) mapping(addr uint64) (*snapshot.VMA, error) {
	vmas := f.Space.VMAs
	for f.vma < len(vmas) && vmas[f.vma].End <= addr {
		f.vma++
		f.known = false
	}
	if f.vma == len(vmas) || vmas[f.vma].Start > addr {
		return nil, fmt.Errorf("there is no memory for the page at %#x", addr)
	}
	v := &vmas[f.vma]
	if !f.known {
		var err error
		if f.lane, err = f.choose(v); err != nil {
			return nil, err
		}
		f.known = true
	}
	return v, nil
}

// choose says how a mapping is filled.
func (f *Filler) choose(v *snapshot.VMA) (lane, error) {
	plain := laneWrite
	if v.FirstProt()&unix.PROT_WRITE == 0 {
		plain = laneForce
	}
	if f.NoUserfaultfd || f.Expect < manyFrom || v.Len() < uffdFrom || v.Kind != snapshot.AnonPrivate ||
		v.Flags&(unix.MAP_GROWSDOWN|unix.MAP_HUGETLB) != 0 || f.inherits(v.Range) {
		return plain, nil
	}
	if plain == laneWrite && f.huge.wanted(f.Space, v) {
		return laneHuge, nil
	}
	ok, err := f.uffd.register(f, v.Range)
	if err != nil {
		return 0, err
	}
	if ok {
		return laneUFFD, nil
	}
	return plain, nil
}

// inherits reports whether a range may have pages already. Ranges ascend from call to call.
func (f *Filler) inherits(r snapshot.Range) bool {
	for len(f.Inherited) > 0 && f.Inherited[0].End <= r.Start {
		f.Inherited = f.Inherited[1:]
	}
	return len(f.Inherited) > 0 && f.Inherited[0].Start < r.End
}

// take makes jobs of pages that are in one mapping and in one place.
func (f *Filler) take(file image.File, offset int64, r snapshot.Range) error {
	lane := f.lane
	for r.Start < r.End {
		j := &f.next
		if len(j.pieces) > 0 && (f.full(j, lane, r.Start) || j.file != file || j.offset+int64(j.bytes) != offset) {
			if err := f.dispatch(); err != nil {
				return err
			}
		}
		if len(j.pieces) == 0 {
			j.file, j.offset = file, offset
		}
		n := min(r.Len(), jobBytes-j.bytes)
		if lane == laneHuge {
			n = min(n, hugeSize-r.Start%hugeSize)
		}
		if last := len(j.pieces) - 1; last >= 0 && lane != laneUFFD && j.pieces[last].lane == lane && j.pieces[last].addr+j.pieces[last].length == r.Start {
			j.pieces[last].length += n
		} else {
			j.pieces = append(j.pieces, piece{r.Start, n, lane})
		}
		j.forced = j.forced || lane == laneForce
		j.bytes += n
		f.Written += n / Size
		r.Start += n
		offset += int64(n)
	}
	return nil
}

// full reports whether a job is to have nothing more, which would be memory from an address on that is filled in some way.
func (f *Filler) full(j *job, lane lane, addr uint64) bool {
	switch last := j.pieces[len(j.pieces)-1].lane; {
	case j.bytes >= jobBytes, len(j.pieces) == linux.MaxParts, lane == laneHuge && addr%hugeSize == 0:
		return true
	default:
		// The userfaultfd's are for others to do where there is much.
		return f.Expect >= manyFrom && (lane == laneUFFD) != (last == laneUFFD)
	}
}

// dispatch does the job that was gathered, or hands it to the team.
func (f *Filler) dispatch() error {
	j := f.next
	f.next = job{}
	if err := f.Process.Tracer().Context().Err(); err != nil {
		return err
	}
	if j.forced || f.Expect < manyFrom {
		f.next.pieces = j.pieces[:0] // to be used again
		return f.do(&j, f.buffer(j.bytes))
	}
	if done, err := f.gang.take(f, &j); done || err != nil {
		return err
	}
	if f.team == nil {
		f.team = newTeam(f, teamSize())
	}
	return f.team.give(j)
}

// teamSize is how many move memory at once.
func teamSize() int { return min(runtime.GOMAXPROCS(0), maxTeam) }

// buffer returns the buffer of this goroutine, for a job of so many bytes.
func (f *Filler) buffer(bytes uint64) []byte {
	if f.Buffer == nil {
		f.Buffer = new(Buffer)
	}
	return f.Buffer.get(min(bufferBytes, max(f.Expect&^(Size-1), bytes)))
}

// doAll does jobs on this goroutine.
func (f *Filler) doAll(jobs []job) error {
	for i := range jobs {
		if err := f.do(&jobs[i], f.buffer(jobs[i].bytes)); err != nil {
			return err
		}
	}
	return nil
}

// do reads what a job is about, and writes it, as much at a time as the buffer holds.
func (f *Filler) do(j *job, buf []byte) error {
	var parts []linux.Part
	offset, left := j.offset, j.bytes
	for i, skip := 0, uint64(0); i < len(j.pieces); {
		part := buf[:min(uint64(len(buf)), left)]
		if n, err := j.file.ReadAt(part, offset); n < len(part) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read the pages at %d, of memory at %#x: %w", offset+int64(n), j.pieces[i].addr+skip, err)
		}
		offset, left = offset+int64(len(part)), left-uint64(len(part))
		parts = parts[:0]
		for len(part) > 0 {
			p := j.pieces[i]
			n := min(uint64(len(part)), p.length-skip)
			if p.lane == laneWrite || p.lane == laneHuge {
				parts = append(parts, linux.Part{Addr: p.addr + skip, Data: part[:n]})
			} else if err := f.put(p.lane, p.addr+skip, part[:n]); err != nil {
				return err
			}
			part, skip = part[n:], skip+n
			if skip == p.length {
				i, skip = i+1, 0
			}
		}
		if err := f.Kernel.WriteParts(f.Process.PID, parts); err != nil {
			return err
		}
	}
	return nil
}

// put writes in one of the ways that take a call each.
func (f *Filler) put(l lane, addr uint64, data []byte) error {
	if l == laneUFFD {
		return f.uffd.copy(f, addr, data)
	}
	return f.force(addr, data)
}

// force writes memory that the process itself may not write. Only the thread that traces it may.
func (f *Filler) force(addr uint64, data []byte) error {
	if f.mem == nil {
		mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", f.Process.PID), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		f.mem = mem
	}
	if err := f.Kernel.ForceInto(f.mem, f.Process.PID, addr, data); err != nil {
		return fmt.Errorf("write %d bytes at %#x by force: %w", len(data), addr, err)
	}
	return nil
}

// Finish waits until all pages are where they belong, and lets go of what the filler holds. It is called after an error of Add, too.
func (f *Filler) Finish(failed error) error {
	if failed == nil && len(f.next.pieces) > 0 {
		failed = f.dispatch()
	}
	if failed == nil {
		failed = f.gang.finish(f)
	}
	failed = errors.Join(failed, f.team.wait())
	failed = errors.Join(failed, f.gang.close(failed == nil))
	if failed == nil && len(f.drops) > 0 {
		if failed = f.Process.Run(f.drops); failed == nil {
			failed = remote.Must(f.drops)
		}
	}
	failed = errors.Join(failed, f.uffd.close(failed == nil, f))
	if f.mem != nil {
		failed = errors.Join(failed, f.mem.Close())
	}
	return failed
}

// team is goroutines that do jobs.
type team struct {
	jobs   chan job
	failed chan struct{} // closed when one of them has failed
	group  sync.WaitGroup
	mu     sync.Mutex
	over   bool
	err    error // the first, until it is told
}

func newTeam(f *Filler, n int) *team {
	t := &team{jobs: make(chan job, n), failed: make(chan struct{})}
	for range n {
		t.group.Go(func() {
			buf := make([]byte, bufferBytes)
			for j := range t.jobs {
				if err := f.do(&j, buf); err != nil {
					t.fail(err)
					return
				}
			}
		})
	}
	return t
}

func (t *team) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.over, t.err = true, err
		close(t.failed)
	}
}

// give hands a job to whoever is free.
func (t *team) give(j job) error {
	select {
	case <-t.failed:
		return t.tell()
	case t.jobs <- j:
		return nil
	}
}

// wait waits until all jobs are done.
func (t *team) wait() error {
	if t == nil {
		return nil
	}
	close(t.jobs)
	t.group.Wait()
	return t.tell()
}

// tell returns what went wrong, once.
func (t *team) tell() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.err
	t.err = nil
	return err
}
