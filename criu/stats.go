package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// DumpStats are the statistics that a peer writes of a dump or pre-dump (stats-dump).
type DumpStats struct {
	Freezing  time.Duration // until the tree stood still
	Frozen    time.Duration // while it stood still
	MemDump   time.Duration // reading memory
	MemWrite  time.Duration // writing memory
	IrmapTime time.Duration // resolving inotify watches

	PagesScanned       uint64
	PagesSkippedParent uint64 // pages that the parent images have
	PagesWritten       uint64
	PagesLazy          uint64 // pages left to the lazy-pages daemon

	ShmemPagesScanned       uint64
	ShmemPagesSkippedParent uint64
	ShmemPagesWritten       uint64
}

// RestoreStats are the statistics that a peer writes of a restore (stats-restore).
type RestoreStats struct {
	Forking       time.Duration // making the processes
	Restore       time.Duration // all of it
	PagesCompared uint64        // pages that a child may share with its parent
	PagesSkipped  uint64        // pages that it does share
	PagesRestored uint64
}

// The image of the statistics is two magic numbers, the length of one message, and the message (CRIU's images).
const (
	serviceMagic = 0x55105940
	statsMagic   = 0x57093306
	maxStats     = 64 << 10
)

// ReadDumpStats reads the statistics of the last dump from the images or work directory dir.
func ReadDumpStats(dir string) (*DumpStats, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("statistics: %w", err)
	}
	defer d.Close()
	return readDumpStatsAt(d)
}

func readDumpStatsAt(dir *os.File) (*DumpStats, error) {
	entry, err := readStats(dir, "stats-dump", 1)
	if err != nil {
		return nil, err
	}
	us := func(n protowire.Number) time.Duration { return time.Duration(entry[n]) * time.Microsecond }
	return &DumpStats{
		Freezing: us(1), Frozen: us(2), MemDump: us(3), MemWrite: us(4), IrmapTime: us(8),
		PagesScanned: entry[5], PagesSkippedParent: entry[6], PagesWritten: entry[7], PagesLazy: entry[9],
		ShmemPagesScanned: entry[12], ShmemPagesSkippedParent: entry[13], ShmemPagesWritten: entry[14],
	}, nil
}

// ReadRestoreStats reads the statistics of the last restore from the images or work directory dir.
func ReadRestoreStats(dir string) (*RestoreStats, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("statistics: %w", err)
	}
	defer d.Close()
	entry, err := readStats(d, "stats-restore", 2)
	if err != nil {
		return nil, err
	}
	us := func(n protowire.Number) time.Duration { return time.Duration(entry[n]) * time.Microsecond }
	return &RestoreStats{Forking: us(3), Restore: us(4), PagesCompared: entry[1], PagesSkipped: entry[2], PagesRestored: entry[5]}, nil
}

// readStats returns the numbers of the message that is field which of the only entry of the image.
func readStats(dir *os.File, name string, which protowire.Number) (map[protowire.Number]uint64, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("statistics: %w", &os.PathError{Op: "open", Path: dir.Name() + "/" + name, Err: err})
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	buf, err := io.ReadAll(io.LimitReader(f, maxStats+1))
	if err == nil {
		var entry map[protowire.Number]uint64
		if entry, err = decodeStats(buf, which); err == nil {
			return entry, nil
		}
	}
	return nil, fmt.Errorf("statistics: %s/%s: %w", dir.Name(), name, err)
}

var errStats = errors.New("not a statistics image, or a damaged one")

// decodeStats is the pure part of readStats.
func decodeStats(buf []byte, which protowire.Number) (map[protowire.Number]uint64, error) {
	if len(buf) < 12 || len(buf) > maxStats ||
		binary.LittleEndian.Uint32(buf) != serviceMagic || binary.LittleEndian.Uint32(buf[4:]) != statsMagic {
		return nil, errStats
	}
	size := binary.LittleEndian.Uint32(buf[8:])
	buf = buf[12:]
	if uint64(size) > uint64(len(buf)) {
		return nil, errStats
	}
	var inner []byte
	found := false
	err := eachField(buf[:size], func(num protowire.Number, typ protowire.Type, value []byte) {
		if num == which && typ == protowire.BytesType {
			inner, _ = protowire.ConsumeBytes(value)
			found = true
		}
	})
	if err != nil || !found {
		return nil, errStats
	}
	entry := make(map[protowire.Number]uint64)
	err = eachField(inner, func(num protowire.Number, typ protowire.Type, value []byte) {
		if typ == protowire.VarintType {
			entry[num], _ = protowire.ConsumeVarint(value)
		}
	})
	if err != nil {
		return nil, errStats
	}
	return entry, nil
}

func eachField(b []byte, f func(protowire.Number, protowire.Type, []byte)) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return protowire.ParseError(m)
		}
		f(num, typ, b[n:n+m])
		b = b[n+m:]
	}
	return nil
}
