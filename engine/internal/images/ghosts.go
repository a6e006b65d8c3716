package images

import (
	"cmp"
	"errors"
	"io"
	"math"
	"slices"

	"stasis.example/image"
	"stasis.example/image/entry"
)

// readGhosts reads which files have lost their names, and what stands for each.
func (s *Set) readGhosts(d image.Dir, r *Report) {
	s.Remaps, _ = optional[entry.RemapFilePath](d, image.RemapFilePath, 0, maxFiles, r)
	s.haunts = make(map[uint32]*entry.RemapFilePath, len(s.Remaps))
	known := make(map[uint32]bool)
	for i := range s.Remaps {
		if r.Stopped() {
			return
		}
		m := &s.Remaps[i]
		if s.haunts[m.OrigID] != nil {
			r.Damaged(image.RemapFilePath.File(0), "file %d is in it twice", m.OrigID)
		}
		s.haunts[m.OrigID] = m
		if m.RemapType != nil && *m.RemapType == entry.RemapTypeGhost && !known[m.RemapID] {
			known[m.RemapID] = true
			s.Ghosts = append(s.Ghosts, readGhost(d, m.RemapID, r))
		}
	}
	// The order in which files come that have lost their names says nothing about the ghosts.
	slices.SortFunc(s.Ghosts, func(a, b Ghost) int { return cmp.Compare(a.ID, b.ID) })
}

// ghostIDs are the numbers of all ghosts.
func (s *Set) ghostIDs() map[uint32]bool {
	ids := make(map[uint32]bool, len(s.Ghosts))
	for i := range s.Ghosts {
		ids[s.Ghosts[i].ID] = true
	}
	return ids
}

// readGhost reads the entry of a ghost, and checks what follows: chunks in ascending order, none of them over another or over
// the end. Of what has no chunks nothing says how long it should be.
func readGhost(d image.Dir, id uint32, r *Report) Ghost {
	g := Ghost{ID: id}
	name := image.GhostFile.File(uint64(id))
	in, err := image.Open(d, image.GhostFile, uint64(id))
	if err != nil {
		r.missing(name, err)
		return g
	}
	defer in.Close()
	if err := in.Next(&g.Entry); errors.Is(err, io.EOF) {
		r.Damaged(name, "there is no file in it")
		return g
	} else if err != nil {
		r.Failed(name, err)
		return g
	}
	if !g.Entry.GetChunks() {
		return g
	}
	size := g.Entry.GetSize()
	if size > math.MaxInt64 {
		r.Damaged(name, "its size is %d", size)
		return g
	}
	for end := uint64(0); !r.Stopped(); {
		var c entry.GhostChunk
		err := in.Next(&c)
		if errors.Is(err, io.EOF) {
			return g
		}
		if err != nil {
			r.Failed(name, err)
			return g
		}
		if c.Len == 0 || c.Off < end || c.Off > size || c.Len > size-c.Off {
			r.Damaged(name, "a chunk of %d bytes at %d, in a file of %d bytes of which %d are there", c.Len, c.Off, size, end)
			return g
		}
		in.Payload(int64(c.Len))
		end = c.Off + c.Len
	}
	return g
}
