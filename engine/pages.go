//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/pages"
	"stasis.example/engine/internal/snapshot"
)

// enter asks the processes from inside. The pages of each were found before it is entered, and those copied that must be: of a
// tree the next ones are looked at by another thread meanwhile, since to ask is mostly to wait. Done is told of each by its place.
func (d *dump) enter(done func(i int)) error {
	f := finder{dump: d, found: make(chan error, len(d.tree.Snapshot.Spaces)), stop: make(chan struct{})}
	if len(d.tree.Snapshot.Spaces) > 1 {
		go f.all()
	} else {
		f.all()
	}
	// It writes to the dump: nobody else does before it has ended.
	defer func() {
		close(f.stop)
		for range f.found {
		}
		d.stats.MemdumpTime += microsecondsOf(f.took)
	}()
	var batch collect.Batch
	for i, p := range d.tree.Processes {
		if p.Remote == nil {
			done(i)
			continue
		}
		if p.Space {
			if err := <-f.found; err != nil {
				return err
			}
		}
		if err := p.Remote.Enter(); err != nil {
			return err
		}
		if err := p.RunInside(&batch); err != nil {
			return err
		}
		done(i)
	}
	d.log.info("pages found")
	return nil
}

// A finder finds the pages of all processes that have an address space of their own, in the order of the tree, and copies what
// must be copied before anything is run in them.
type finder struct {
	dump  *dump
	found chan error // nil for each process that is done; closed at the end
	stop  chan struct{}
	took  time.Duration
}

func (f *finder) all() {
	defer close(f.found)
	began := time.Now()
	defer func() { f.took = time.Since(began) }()
	spaces := make(map[snapshot.ObjectID]*snapshot.Space)
	for _, space := range f.dump.tree.Snapshot.Spaces {
		spaces[space.ID] = space
	}
	for p := range f.dump.tree.Alive() {
		if !p.Space {
			continue
		}
		select {
		case <-f.stop:
			return
		default:
		}
		err := f.dump.findPages(p, spaces[p.Task.Space])
		f.found <- err
		if err != nil {
			return
		}
	}
}

func (d *dump) findPages(p *collect.Process, space *snapshot.Space) error {
	scanner, err := pages.NewScanner(d.kernel, p.Live(), !d.oldPages, &d.buffer)
	if err != nil {
		return err
	}
	c, err := d.copier(p)
	if err == nil {
		d.copiers = append(d.copiers, c)
		err = scanner.Space(space, c.Announce)
	}
	if err = errors.Join(err, scanner.Close()); err != nil {
		return err
	}
	d.stats.PagesScanned += scanner.Scanned
	all, err := c.Early()
	if err != nil {
		return fmt.Errorf("pages of process %d: %w", p.PID, err)
	}
	d.stats.PagesWritten += c.Written
	if c.Written*pages.Size >= largeProcess {
		d.large = append(d.large, p)
	}
	if !all {
		return nil
	}
	// A tree of many processes has no more images open than it must.
	d.copiers = d.copiers[:len(d.copiers)-1]
	return errors.Join(c.Close(), c.Sink.Close())
}

// copier makes what copies the pages of a process, and the images that they go to.
func (d *dump) copier(p *collect.Process) (*pages.Copier, error) {
	d.pageImages++
	sink, err := pages.NewDirSink(d.dir, p.PID, d.pageImages)
	if err != nil {
		return nil, err
	}
	return &pages.Copier{Kernel: d.kernel, Process: p.Remote, Sink: sink, NotItself: limited(p.Task), Buffer: &d.buffer}, nil
}

// limited tells whether a process may not write files of any size: it would get a signal.
func limited(t *snapshot.Task) bool {
	return len(t.Limits) <= unix.RLIMIT_FSIZE || t.Limits[unix.RLIMIT_FSIZE].Soft != math.MaxUint64
}

// writePages copies the rest of the pages.
func (d *dump) writePages() error {
	began := time.Now()
	defer func() { d.stats.MemwriteTime += microseconds(began) }()
	told := false
	for len(d.copiers) > 0 {
		c := d.copiers[0]
		if !told && c.Large() {
			d.stage(StagePages)
			told = true
		}
		if err := c.Late(); err != nil {
			return fmt.Errorf("pages of process %d: %w", c.Process.PID, err)
		}
		d.copiers = d.copiers[1:]
		if err := errors.Join(c.Close(), c.Sink.Close()); err != nil {
			return err
		}
	}
	return nil
}
