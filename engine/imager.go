//go:build amd64

package engine

import (
	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/kinds"
	"stasis.example/image"
)

// An imager makes the entries of a tree, those of each process as soon as all is known of it. Of a large tree it also writes them at
// once, and forgets them, while other processes are being asked: to ask is mostly to wait.
type imager struct {
	tree    *collect.Tree
	dir     image.Dir
	encoder *kinds.Encoder
	report  images.Report // of the thread that encodes
	told    chan int      // the processes that are to be written at once; nil for none
	written chan error    // closed when all are
}

// newImager makes the entries of the tree as a whole. Nothing is written at once where the images are to come later, as who runs on
// need not wait for them.
func newImager(tree *collect.Tree, dir image.Dir, later bool) *imager {
	m := &imager{tree: tree, dir: dir}
	m.encoder = kinds.NewEncoder(tree.Snapshot, &m.report)
	const worthIt = 8
	if n := len(tree.Processes); n >= worthIt && !later {
		m.told, m.written = make(chan int, n), make(chan error, 1)
		m.encoder.Briefly()
		go m.write()
	}
	return m
}

// set is the entries.
func (m *imager) set() *images.Set { return m.encoder.Set }

// process makes the entries of a process, by its place in the tree. All is known of it.
func (m *imager) process(i int) {
	if m.told != nil {
		m.told <- i
		return
	}
	m.encoder.Process(i)
}

// write writes all but the inventory.
func (m *imager) write() {
	defer close(m.written)
	if err := m.set().WriteTree(m.dir); err != nil {
		m.written <- err
		return
	}
	for i := range m.told {
		m.encoder.Process(i)
		if err := m.set().WriteProcess(m.dir, i); err != nil {
			m.written <- err
			return
		}
	}
}

// complete makes the images that are still to be made. It comes after finish, when everything else is there.
func (m *imager) complete() error {
	if m.told != nil {
		return m.set().WriteInventory(m.dir)
	}
	return m.set().Write(m.dir)
}

// finish waits for what is being written. All processes have been told of, or none will be any more.
func (m *imager) finish() error {
	var err error
	if m.told != nil {
		close(m.told)
		err = <-m.written
	}
	m.tree.Report.Merge(&m.report)
	return err
}
