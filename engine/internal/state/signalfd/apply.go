//go:build amd64

package signalfd

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Open makes a signalfd.
func Open(o *snapshot.SignalFD) (*apply.File, error) {
	mask := &unix.Sigset_t{}
	mask.Val[0] = uint64(o.Mask)
	fd, err := unix.Signalfd(-1, mask, unix.SFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("signalfd4: %w", err)
	}
	return apply.NewFile(fd), nil
}
