// Package pipes is the state "pipes and fifos": their ends, what is in them, how much they hold. In images the ends are entries
// of type PIPE and FIFO in files.img, the content is in pipes-data.img and fifo-data.img.
//
//   - Collect: ends with one inode are of one pipe; content is copied with tee(2) through an end that the engine has
//     taken, which takes nothing out. In packet mode (O_DIRECT) the bounds of packets are kept too, in a field of our own: CRIU
//     loses them.
//   - Apply: pipe2 in the engine, ends beyond the first two opened through /proc/self/fd so that each is a description
//     of its own; capacity before content; the end that nobody has is closed last, or readers would see the end too early.
package pipes

import (
	"encoding/binary"
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// extPackets is the field of the extension of a pipe's content that has the lengths of packets, 32 bits each.
const extPackets = 1

func encodePackets(lengths []uint32) []byte {
	b := make([]byte, 0, 4*len(lengths))
	for _, n := range lengths {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

// decodePackets reads lengths that have to make up size bytes.
func decodePackets(b []byte, size int) ([]uint32, bool) {
	lengths, sum := make([]uint32, 0, len(b)/4), uint64(0)
	for ; len(b) >= 4; b = b[4:] {
		n := binary.LittleEndian.Uint32(b)
		if n == 0 {
			return nil, false
		}
		lengths, sum = append(lengths, n), sum+uint64(n)
	}
	return lengths, len(b) == 0 && sum == uint64(size)
}

// Encode writes ends and contents.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for e, f := range to.FilesOf(from, entry.FDTypePipe) {
		o := f.Object.(*snapshot.PipeEnd)
		e.Pipe = &entry.Pipe{ID: e.ID, PipeID: uint32(o.Pipe), Flags: f.Flags, Fown: images.Fown(f)}
	}
	for e, f := range to.FilesOf(from, entry.FDTypeFIFO) {
		o := f.Object.(*snapshot.FIFOEnd)
		e.FIFO = &entry.FIFO{ID: e.ID, PipeID: uint32(o.Pipe)}
		if o.Node != 0 {
			e.FIFO.RegfID = new(uint32(o.Node))
		}
	}
	for _, p := range from.Pipes {
		d := images.PipeData{Entry: entry.PipeData{PipeID: uint32(p.ID), Bytes: uint32(len(p.Data))}, Data: p.Data}
		if uint64(len(p.Data)) > math.MaxUint32 {
			r.Unsupported(images.FileName(uint32(p.ID)), "a pipe with %d bytes in it", len(p.Data))
		}
		if p.Capacity != 0 {
			d.Entry.Size = &p.Capacity
		}
		if p.Packets != nil {
			var ext images.Extension
			ext.SetBytes(extPackets, encodePackets(p.Packets))
			d.Entry.Unknown = ext.AppendTo(d.Entry.Unknown)
		}
		if p.FIFO {
			to.FIFOs = append(to.FIFOs, d)
		} else {
			to.Pipes = append(to.Pipes, d)
		}
	}
}

// Decode reads ends and contents.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	d := decoder{r: r, from: from, ends: make(map[snapshot.PipeID]string)}
	d.files(to)
	seen := make(map[uint32]bool)
	for _, list := range []struct {
		name string
		fifo bool
		data []images.PipeData
	}{{image.PipesData.File(0), false, from.Pipes}, {image.FIFOData.File(0), true, from.FIFOs}} {
		for i := range list.data {
			e := &list.data[i].Entry
			r.Unknown(list.name, e, e.Unknown)
			if seen[e.PipeID] {
				r.Damaged(list.name, "pipe %d occurs twice", e.PipeID)
				continue
			}
			seen[e.PipeID] = true
			p := &snapshot.Pipe{ID: snapshot.PipeID(e.PipeID), FIFO: list.fifo, Capacity: e.GetSize(), Data: list.data[i].Data}
			if p.Capacity > 1<<31 || p.Capacity != 0 && len(p.Data) > int(p.Capacity) {
				r.Damaged(list.name, "pipe %d holds %d bytes, and has %d", e.PipeID, p.Capacity, len(p.Data))
			}
			if kind := map[bool]string{false: "pipe", true: "fifo"}[list.fifo]; d.ends[p.ID] != "" && d.ends[p.ID] != kind {
				r.Damaged(list.name, "%d is a %s, and no %s", e.PipeID, d.ends[p.ID], kind)
			}
			if ext, err := images.ParseExtension(e.Unknown); err != nil {
				r.Damaged(list.name, "pipe %d: %v", e.PipeID, err)
			} else if b, ok := ext.Bytes(extPackets); ok {
				if p.Packets, ok = decodePackets(b, len(p.Data)); !ok {
					r.Damaged(list.name, "pipe %d: its packets do not make up the %d bytes in it", e.PipeID, len(p.Data))
				}
			}
			to.Pipes = append(to.Pipes, p)
		}
	}
}

type decoder struct {
	r    *images.Report
	from *images.Set
	ends map[snapshot.PipeID]string // the kind, by number
}

func (d *decoder) files(to *snapshot.Tree) {
	for e, f := range d.from.FilesOf(to, entry.FDTypePipe) {
		if !images.Filled(e, e.Pipe, func(m *entry.Pipe) uint32 { return m.ID }, d.r) {
			continue
		}
		d.r.Unknown(images.FileName(e.ID), e.Pipe, e.Pipe.Unknown)
		images.DecodeFile(e, f, e.Pipe.Flags, &e.Pipe.Fown, d.r)
		o := &snapshot.PipeEnd{Pipe: snapshot.PipeID(e.Pipe.PipeID)}
		f.Object = o
		if f.Flags&3 == 3 {
			d.r.Damaged(images.FileName(e.ID), "an end of a pipe with flags %#o", f.Flags)
		}
		d.ends[o.Pipe] = "pipe"
	}
	for e, f := range d.from.FilesOf(to, entry.FDTypeFIFO) {
		if !images.Filled(e, e.FIFO, func(m *entry.FIFO) uint32 { return m.ID }, d.r) {
			continue
		}
		where := images.FileName(e.ID)
		d.r.Unknown(where, e.FIFO, e.FIFO.Unknown)
		o := &snapshot.FIFOEnd{Pipe: snapshot.PipeID(e.FIFO.PipeID), Node: snapshot.FileID(e.FIFO.GetRegfID())}
		f.Object = o
		if d.ends[o.Pipe] == "pipe" {
			d.r.Damaged(where, "%d is a pipe, and no fifo", o.Pipe)
		}
		d.ends[o.Pipe] = "fifo"
		// CRIU has the name, the flags and the owner in an entry of its own, and before 2.0 under the same number.
		node := d.from.File(uint32(o.Node))
		if node == nil || node.Reg == nil {
			d.r.Damaged(where, "the name of the fifo, file %d, is not in %s", o.Node, image.Files.File(0))
			continue
		}
		images.DecodeFile(e, f, node.Reg.Flags, &node.Reg.Fown, d.r)
	}
}
