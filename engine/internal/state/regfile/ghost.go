package regfile

import (
	"math"
	"path"
	"strings"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// The kinds of files that may be ghosts, and the bits of their modes; see inode(7).
const (
	modeType = 0o170000
	modeReg  = 0o100000
	modeDir  = 0o040000
	modeFIFO = 0o010000
	modeLink = 0o120000
	modeBits = 0o7777
)

// tmpfile is O_TMPFILE. A file that was opened so has a name from us for a moment, and must not be opened so again.
const tmpfile = 0o20000000 | 0o200000

// encodeGhosts writes the files that have no name.
func encodeGhosts(from *snapshot.Tree, to *images.Set) {
	for _, g := range from.Ghosts {
		e := images.Ghost{ID: uint32(g.ID), Entry: entry.GhostFile{
			UID: g.UID, GID: g.GID, Mode: g.Mode, Dev: g.Device, Ino: g.Inode, Atim: timeval(g.Atime), Mtim: timeval(g.Mtime),
		}}
		if g.Target != "" {
			e.Entry.SymlnkTarget = &g.Target
		}
		if g.Sparse {
			e.Entry.Chunks, e.Entry.Size = new(true), &g.Size
		}
		to.Ghosts = append(to.Ghosts, e)
	}
	for _, f := range from.Files {
		if o, ok := f.Object.(*snapshot.Regular); ok && o.Ghost != 0 {
			to.Remaps = append(to.Remaps, entry.RemapFilePath{OrigID: uint32(f.ID), RemapID: uint32(o.Ghost), RemapType: new(entry.RemapTypeGhost)})
		} else if ok && o.Link != 0 {
			to.Remaps = append(to.Remaps, entry.RemapFilePath{OrigID: uint32(f.ID), RemapID: uint32(o.Link), RemapType: new(entry.RemapTypeLinked)})
		}
	}
}

func timeval(t *snapshot.Timespec) *entry.Timeval {
	if t == nil {
		return nil
	}
	return &entry.Timeval{TvSec: uint64(t.Sec), TvUsec: uint64(t.Nsec / 1000)}
}

// decodeGhosts reads the files that have no name.
func decodeGhosts(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for i := range from.Ghosts {
		e := &from.Ghosts[i].Entry
		where := image.GhostFile.File(uint64(from.Ghosts[i].ID))
		r.Unknown(where, e, e.Unknown)
		g := &snapshot.Ghost{
			ID: snapshot.GhostID(from.Ghosts[i].ID), Mode: e.Mode, UID: e.UID, GID: e.GID, Device: e.Dev, Inode: e.Ino,
			Target: e.GetSymlnkTarget(), Sparse: e.GetChunks(), Atime: timespec(where, e.Atim, r), Mtime: timespec(where, e.Mtim, r),
		}
		if g.Sparse { // else it is as long as what follows
			g.Size = e.GetSize()
		}
		to.Ghosts = append(to.Ghosts, g)
		switch g.Mode & modeType {
		case modeReg, modeDir, modeFIFO:
		case modeLink:
			if g.Target == "" || len(g.Target) >= maxName || strings.ContainsRune(g.Target, 0) {
				r.Damaged(where, "a symbolic link that leads to %q", g.Target)
			}
		default:
			r.Unsupported(where, "a %s without a name: not restored by the built-in engine", kindName(g.Mode))
		}
		if g.Mode&^(modeType|modeBits) != 0 || g.Sparse && g.Mode&modeType != modeReg {
			r.Damaged(where, "its mode is %#o", g.Mode)
		}
		if g.ID == 0 {
			r.Damaged(where, "a ghost of the number 0")
		}
		if g.UID == math.MaxUint32 || g.GID == math.MaxUint32 {
			r.Damaged(where, "it belongs to uid %d and gid %d", g.UID, g.GID)
		}
	}
}

func timespec(where string, t *entry.Timeval, r *images.Report) *snapshot.Timespec {
	if t == nil {
		return nil
	}
	if t.TvUsec >= 1e6 {
		r.Damaged(where, "a time of %d microseconds", t.TvUsec)
	}
	// Times before 1970 are negative numbers.
	return &snapshot.Timespec{Sec: int64(t.TvSec), Nsec: int64(t.TvUsec%1e6) * 1000}
}

// checkRemaps looks for ghosts of what is no file with a name.
func checkRemaps(from *images.Set, r *images.Report) {
	for i := range from.Remaps {
		if id := from.Remaps[i].OrigID; from.File(id) == nil || from.File(id).Reg == nil {
			r.Unsupported(image.RemapFilePath.File(0), "file %d has lost its name, and is none that has one", id)
		}
	}
}

// decodeRemap finds what stands for a file that has lost its name.
func decodeRemap(from *images.Set, id uint32, o *snapshot.Regular, ghosts map[snapshot.GhostID]*snapshot.Ghost, r *images.Report) {
	m := from.Remap(id)
	if m == nil {
		return
	}
	where := images.FileName(id)
	switch {
	case m.RemapType == nil:
		r.Unsupported(where, "%s is gone, and the images, of an old CRIU, do not say what stands for it", o.Path.Name)
		return
	case *m.RemapType == entry.RemapTypeLinked:
		decodeLink(where, from.File(m.RemapID), o, r)
		return
	case *m.RemapType == entry.RemapTypeProcfs:
		r.Unsupported(where, "%s is of a process that has ended: not restored by the built-in engine", o.Path.Name)
		return
	case *m.RemapType != entry.RemapTypeGhost:
		r.Unsupported(where, "%s is gone, and what stands for it is of the unknown kind %v", o.Path.Name, *m.RemapType)
		return
	}
	o.Ghost = snapshot.GhostID(m.RemapID)
	if g := ghosts[o.Ghost]; g != nil && o.Mode != nil && *o.Mode&modeType != g.Mode&modeType {
		r.Damaged(where, "%s is a %s, and its ghost a %s", o.Path.Name, kindName(*o.Mode), kindName(g.Mode))
	}
}

// linkName is what the names that a dump makes begin with. A restore takes them away again, and no others.
const linkName = "link_remap."

// decodeLink finds the file that has the name which the dump has made for one that has lost its own.
func decodeLink(where string, link *entry.File, o *snapshot.Regular, r *images.Report) {
	switch {
	case link == nil || link.Reg == nil:
		r.Damaged(where, "%s is gone, and the file that has a name for it is not there", o.Path.Name)
	case !strings.HasPrefix(path.Base(link.Reg.Name), linkName):
		r.Damaged(where, "%s is gone, and the name that was made for it is %s", o.Path.Name, link.Reg.Name)
	default:
		o.Link = snapshot.FileID(link.ID)
	}
}

// byNumber finds files that have no name.
func byNumber(t *snapshot.Tree) map[snapshot.GhostID]*snapshot.Ghost {
	ghosts := make(map[snapshot.GhostID]*snapshot.Ghost, len(t.Ghosts))
	for _, g := range t.Ghosts {
		ghosts[g.ID] = g
	}
	return ghosts
}

func kindName(mode uint32) string {
	switch mode & modeType {
	case modeReg:
		return "regular file"
	case modeDir:
		return "directory"
	case modeFIFO:
		return "fifo"
	case 0o020000:
		return "character device"
	case 0o060000:
		return "block device"
	case modeLink:
		return "symbolic link"
	case 0o140000:
		return "socket"
	}
	return "file of no known kind"
}
