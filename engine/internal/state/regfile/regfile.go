// Package regfile is the state "files with a name": regular files, directories, devices, the node of a fifo; opened, mapped,
// executed, or somebody's working directory. In images they are entries of type REG in files.img.
//
//   - Collect: fdinfo, the link, and stat of the file through the link. Size and mode are kept to be checked. A file that has no
//     name left is a ghost: what is in it goes to the dump (Write), up to a limit, without holes. One whose name is gone and which
//     has others gets one more, if that is allowed, which a dump that fails takes away again (Unlink).
//   - Apply: looked up by the engine under the root that it was given, never by a path that leaves it; mode, size and build-id
//     checked as --file-validation says; then opened, once for each entry, never with O_CREAT or O_TRUNC; then the offset. A device is
//     only opened if the mode in the image says so. A ghost is made in the directory that it was in, under a name that nobody
//     has, and the name taken away at once, before there is anything in the file; it is opened by its descriptor, and gets its
//     owner and mode when it is open for all. A name that the dump has made is taken away when the tree is there.
package regfile

import (
	"encoding/binary"
	"math"
	"path"
	"strings"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// noPos is the offset of files that have none.
const noPos = math.MaxUint64

// maxName is the kernel's PATH_MAX. A path that /proc shows can be no longer.
const maxName = 4096

// Encode writes the files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	encodeGhosts(from, to)
	for e, f := range to.FilesOf(from, entry.FDTypeReg) {
		o := f.Object.(*snapshot.Regular)
		e.Reg = &entry.RegFile{
			ID: e.ID, Flags: f.Flags, Pos: o.Pos, Fown: images.Fown(f), Name: o.Path.Name, Mode: o.Mode, Size: o.Size, BuildID: buildID(o.BuildID),
		}
		if o.Path.Mount != -1 {
			e.Reg.MntID = &o.Path.Mount
		}
		if o.External {
			e.Reg.Ext = new(true)
		}
		if c := o.Checksum; c != nil {
			e.Reg.Checksum, e.Reg.ChecksumConfig, e.Reg.ChecksumParameter = &c.Sum, c.Config, c.Parameter
		}
	}
}

// buildID returns the id in words as CRIU reads them from the file: of the machine's byte order, which is little here.
func buildID(b []byte) []uint32 {
	if b == nil {
		return nil
	}
	words := make([]uint32, 0, (len(b)+3)/4)
	for ; len(b) > 0; b = b[min(len(b), 4):] {
		var w [4]byte
		copy(w[:], b)
		words = append(words, binary.LittleEndian.Uint32(w[:]))
	}
	return words
}

// Decode reads the files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	decodeGhosts(from, to, r)
	checkRemaps(from, r)
	ghosts := byNumber(to)
	regular := 0
	for range from.FilesOf(to, entry.FDTypeReg) {
		regular++
	}
	room := make([]snapshot.Regular, regular)
	for e, f := range from.FilesOf(to, entry.FDTypeReg) {
		reg := e.Reg
		if !images.Filled(e, reg, func(m *entry.RegFile) uint32 { return m.ID }, r) {
			continue
		}
		r.UnknownInFile(e.ID, reg, reg.Unknown)
		flags := reg.Flags
		if from.Remap(e.ID) != nil && flags&tmpfile == tmpfile {
			flags &^= tmpfile
		}
		images.DecodeFile(e, f, flags, &reg.Fown, r)
		o := &room[0]
		room = room[1:]
		*o = snapshot.Regular{
			Path: snapshot.Path{Mount: -1, Name: reg.Name}, Pos: reg.Pos, External: reg.GetExt(), Mode: reg.Mode, Size: reg.Size,
		}
		f.Object = o
		if reg.MntID != nil {
			o.Path.Mount = *reg.MntID
		}
		if reg.Pos > math.MaxInt64 && reg.Pos != noPos {
			r.Damaged(images.FileName(e.ID), "its offset is %d", reg.Pos)
		}
		if reg.Size != nil && *reg.Size > math.MaxInt64 {
			r.Damaged(images.FileName(e.ID), "its size is %d", *reg.Size)
		}
		if len(reg.BuildID) > 0 {
			o.BuildID = make([]byte, 0, 4*len(reg.BuildID))
			for _, w := range reg.BuildID {
				o.BuildID = binary.LittleEndian.AppendUint32(o.BuildID, w)
			}
		}
		if reg.Checksum != nil {
			o.Checksum = &snapshot.Checksum{Sum: *reg.Checksum, Config: reg.ChecksumConfig, Parameter: reg.ChecksumParameter}
		}
		decodeName(e.ID, o, r)
		decodeRemap(from, e.ID, o, ghosts, r)
	}
}

func decodeName(id uint32, o *snapshot.Regular, r *images.Report) {
	name := o.Path.Name
	switch {
	case strings.IndexByte(name, 0) >= 0:
		r.Damaged(images.FileName(id), "the name %q has a zero byte in it", name)
	case len(name) >= maxName:
		r.Damaged(images.FileName(id), "a name of %d bytes", len(name))
	case o.External: // a key, not a name
	case !strings.HasPrefix(name, "/"):
		r.Damaged(images.FileName(id), "the name %q is not absolute", name)
	case path.Clean(name) != name:
		// The kernel never shows such a name; a program that makes one wants to lead somewhere else.
		r.Damaged(images.FileName(id), "the name %q is not one that the kernel gives", name)
	}
}
