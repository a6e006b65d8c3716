//go:build amd64

package engine

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/image"
	"stasis.example/image/entry"
)

// inGhost writes the image of a regular file without a name anew: its entry, changed, and what stands behind it.
func inGhost(change func(*entry.GhostFile), behind ...entry.Message) func(*hostile) {
	return func(h *hostile) {
		for _, id := range ghosts(h) {
			var g entry.GhostFile
			r, err := image.Open(h.dir, image.GhostFile, id)
			if err != nil {
				h.t.Fatal(err)
			}
			err = r.Next(&g)
			r.Close()
			if err != nil {
				h.t.Fatal(err)
			}
			if g.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			change(&g)
			if err := image.WriteAll(h.dir, image.GhostFile, id, append([]entry.Message{&g}, behind...)...); err != nil {
				h.t.Fatal(err)
			}
			return
		}
		h.t.Fatal("there is no regular file without a name")
	}
}

// ghosts are the numbers of files without a name.
func ghosts(h *hostile) (ids []uint64) {
	all, err := image.ReadAll[entry.RemapFilePath](h.dir, image.RemapFilePath, 0)
	if err != nil || len(all) == 0 {
		h.t.Fatalf("no files without a name: %v", err)
	}
	for i := range all {
		ids = append(ids, uint64(all[i].RemapID))
	}
	return ids
}

func hostileGhosts() []mutation {
	const ghost, remap = "ghost-file-", "remap-fpath.img"
	kind := func(mode uint32) func(*hostile) {
		return inGhost(func(g *entry.GhostFile) { g.Mode, g.Rdev, g.Chunks = mode|0o666, new(uint32(0x101)), nil })
	}
	sized := func(size uint64, chunks ...entry.Message) func(*hostile) {
		return inGhost(func(g *entry.GhostFile) { g.Chunks, g.Size = new(true), &size }, chunks...)
	}
	first := func(change func(*entry.RemapFilePath)) func(*hostile) {
		return each(image.RemapFilePath, noID, func(_ *hostile, i int, m *entry.RemapFilePath) {
			if i == 0 {
				change(m)
			}
		})
	}
	return []mutation{
		{"memory as a device", kind(unix.S_IFCHR), []string{ghost, "a character device without a name"}},
		{"a disk as a device", kind(unix.S_IFBLK), []string{ghost, "a block device without a name"}},
		{"a link to nowhere", kind(unix.S_IFLNK), []string{ghost, "a symbolic link that leads to"}},
		{"a socket without a name", kind(unix.S_IFSOCK), []string{ghost, "a socket without a name"}},
		{"a mode of 32 bits", kind(1<<31 | unix.S_IFREG), []string{ghost, "its mode is 020000100666"}},
		{"an owner who is nobody", inGhost(func(g *entry.GhostFile) { g.UID = 1<<32 - 1 }), []string{ghost, "it belongs to uid 4294967295"}},
		{"2^63 bytes", sized(1 << 63), []string{ghost, "its size is 9223372036854775808"}},
		{"2^40 bytes of which none is there", sized(1 << 40), []string{"which was deleted"}},
		{"a chunk behind the end", sized(4096, &entry.GhostChunk{Off: 8192, Len: 1}), []string{ghost, "a chunk of 1 bytes at 8192"}},
		{"a chunk of 2^60 bytes", sized(1<<62, &entry.GhostChunk{Len: 1 << 60}), []string{ghost}},
		{"a chunk that ends before it begins", sized(1<<62, &entry.GhostChunk{Off: 1 << 61, Len: 1<<64 - 1}), []string{ghost, "a chunk of 18446744073709551615 bytes"}},
		{"nothing", inGhost(func(g *entry.GhostFile) { g.Chunks, g.Size = nil, nil }), []string{"which was deleted", "in the image there are 0 bytes"}},
		{"a number that nothing has", first(func(m *entry.RemapFilePath) { m.RemapID = 1<<32 - 1 }), []string{"ghost-file-ffffffff.img: the image is missing"}},
		{"a file that is none", first(func(m *entry.RemapFilePath) { m.OrigID = 1<<32 - 1 }), []string{remap, "file 4294967295"}},
		{"one file twice", each(image.RemapFilePath, noID, func(_ *hostile, _ int, m *entry.RemapFilePath) { m.OrigID = 1 }), []string{remap, "is in it twice"}},
		{"an unknown kind", first(func(m *entry.RemapFilePath) { m.RemapType = new(entry.RemapType(99)) }), []string{"unknown kind"}},
		{"another's name, to be taken away", func(h *hostile) {
			inFile("/ghosts", func(_ *hostile, program *entry.File) {
				first(func(m *entry.RemapFilePath) { m.RemapID, m.RemapType = program.ID, new(entry.RemapTypeLinked) })(h)
			})(h)
		}, []string{"files.img", "the name that was made for it is", "/ghosts"}},
		{"a fifo as an image", func(h *hostile) {
			file(image.GhostFile.File(ghosts(h)[0]), instead(func(path string) error { return unix.Mkfifo(path, 0o600) }))(h)
		}, []string{ghost, "an image is a regular file"}},
		{"another's memory as an image", func(h *hostile) {
			file(image.GhostFile.File(ghosts(h)[0]), instead(linkTo(fmt.Sprintf("/proc/%d/mem", 1))))(h)
		}, []string{ghost}},
	}
}
