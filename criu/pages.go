package criu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// CRIU (4.2.1, at least) waits for ever when it restores from a pages image that is shorter than its page map says. So
// the lengths are compared before a restore is asked for. Only what is certain is an error here: everything else that may
// be wrong with images CRIU reports by itself, and better.

// Flags of a page map's entry, as CRIU's pagemap.proto documents them.
const (
	pagePresent   = 1 << 2 // the pages are in the pages image
	pageFlagsKnow = 1<<3 - 1
)

const pagemapMagic = 0x56084025

// maxPagemapEntry bounds one entry of a page map, which has a handful of numbers.
const maxPagemapEntry = 4096

// checkPages compares the length of each pages image in dir with what its page map says.
func checkPages(dir *os.File) error {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // CRIU will say so
	}
	listing := os.NewFile(uintptr(fd), dir.Name())
	defer listing.Close()
	names, err := listing.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "pagemap-") || !strings.HasSuffix(name, ".img") {
			continue
		}
		id, pages, known := readPagemap(fd, name)
		if !known || pages == 0 {
			continue
		}
		image := fmt.Sprintf("pages-%d.img", id)
		var st unix.Stat_t
		if unix.Fstatat(fd, image, &st, 0) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue // elsewhere, or missing: a lazy restore needs none
		}
		if want := pages * uint64(os.Getpagesize()); uint64(st.Size) < want {
			return fmt.Errorf("%s/%s is truncated: it has %d bytes, and %s says %d", dir.Name(), image, st.Size, name, want)
		}
	}
	return nil
}

// readPagemap returns the number of the pages image that the page map belongs to, and how many pages it says are there.
// It does not know of a page map that is damaged or has anything that this code does not know, such as compression.
func readPagemap(dir int, name string) (id uint32, pages uint64, known bool) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, 0, false
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	id, pages, err = decodePagemap(f)
	return id, pages, err == nil
}

var errPagemap = errors.New("not a page map that is understood")

// decodePagemap is the pure part of readPagemap.
func decodePagemap(r io.Reader) (id uint32, pages uint64, err error) {
	b := bufio.NewReader(r)
	var magic [8]byte
	if _, err := io.ReadFull(b, magic[:]); err != nil || binary.LittleEndian.Uint32(magic[4:]) != pagemapMagic {
		return 0, 0, errPagemap
	}
	entry := make([]byte, 0, 64)
	for n := 0; ; n++ {
		var size [4]byte
		switch _, err := io.ReadFull(b, size[:]); {
		case errors.Is(err, io.EOF) && n > 0:
			return id, pages, nil
		case err != nil:
			return 0, 0, errPagemap
		}
		length := binary.LittleEndian.Uint32(size[:])
		if length > maxPagemapEntry {
			return 0, 0, errPagemap
		}
		entry = append(entry[:0], make([]byte, length)...)
		if _, err := io.ReadFull(b, entry); err != nil {
			return 0, 0, errPagemap
		}
		fields, err := numbers(entry)
		if err != nil {
			return 0, 0, err
		}
		if n == 0 {
			id = uint32(fields[1])
			continue
		}
		count, err := presentPages(fields)
		if err != nil || pages+count < pages || pages+count > 1<<52 {
			return 0, 0, errPagemap
		}
		pages += count
	}
}

// presentPages is how many pages of an entry are in the pages image. CRIU 4.2 counts in field 5, older ones in field 2;
// the oldest images have no flags (4) but say whether the pages are in the parent images (3).
func presentPages(fields map[protowire.Number]uint64) (uint64, error) {
	flags, hasFlags := fields[4]
	for num := range fields {
		if num > 5 {
			return 0, errPagemap
		}
	}
	count := max(fields[5], fields[2])
	switch {
	case flags&^pageFlagsKnow != 0:
		return 0, errPagemap
	case hasFlags && flags&pagePresent == 0, !hasFlags && fields[3] != 0:
		return 0, nil
	}
	return count, nil
}

// numbers returns the numeric fields of a message that has no others.
func numbers(b []byte) (map[protowire.Number]uint64, error) {
	fields := make(map[protowire.Number]uint64, 4)
	other := false
	err := eachField(b, func(num protowire.Number, typ protowire.Type, value []byte) {
		if typ != protowire.VarintType {
			other = true
			return
		}
		fields[num], _ = protowire.ConsumeVarint(value)
	})
	if err != nil || other {
		return nil, errPagemap
	}
	return fields, nil
}
