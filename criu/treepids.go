package criu

import (
	"encoding/binary"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// The image of the process tree is two magic numbers and an entry for each task, of which field 1 is the pid; before each
// entry stands its length (CRIU's images).
const (
	commonMagic = 0x54564319
	pstreeMagic = 0x50273030
	maxPstree   = 1 << 20
)

// treePIDs reads the pids of the tree from the images, the root's first; none where they are not to be had: a restore
// will say why.
func treePIDs(dir *os.File) []int {
	fd, err := unix.Openat(int(dir.Fd()), "pstree.img", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), "pstree.img")
	defer f.Close()
	buf, err := io.ReadAll(io.LimitReader(f, maxPstree))
	if err != nil {
		return nil
	}
	return decodeTreePIDs(buf)
}

// decodeTreePIDs is the pure part of treePIDs. It stops at the first entry that it does not understand.
func decodeTreePIDs(buf []byte) (pids []int) {
	if len(buf) < 8 || binary.LittleEndian.Uint32(buf) != commonMagic || binary.LittleEndian.Uint32(buf[4:]) != pstreeMagic {
		return nil
	}
	for buf = buf[8:]; len(buf) >= 4; {
		size := binary.LittleEndian.Uint32(buf)
		if buf = buf[4:]; uint64(size) > uint64(len(buf)) {
			return pids
		}
		pid := uint64(0)
		err := eachField(buf[:size], func(num protowire.Number, typ protowire.Type, value []byte) {
			if num == 1 && typ == protowire.VarintType {
				pid, _ = protowire.ConsumeVarint(value)
			}
		})
		if err != nil || pid == 0 || pid > 1<<22 { // PID_MAX_LIMIT
			return pids
		}
		pids, buf = append(pids, int(pid)), buf[size:]
	}
	return pids
}
