//go:build amd64

package eventfd

import (
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Open makes an eventfd.
func Open(o *snapshot.EventFD) (*apply.File, error) {
	how := unix.EFD_CLOEXEC
	if o.Semaphore {
		how |= unix.EFD_SEMAPHORE
	}
	initial := min(o.Counter, math.MaxUint32)
	fd, err := unix.Eventfd(uint(initial), how)
	if err != nil {
		return nil, fmt.Errorf("eventfd2: %w", err)
	}
	f := apply.NewFile(fd)
	if rest := o.Counter - initial; rest > 0 {
		if _, err := unix.Write(fd, binary.LittleEndian.AppendUint64(nil, rest)); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("a counter of %d: %w", o.Counter, err)
		}
	}
	return f, nil
}
