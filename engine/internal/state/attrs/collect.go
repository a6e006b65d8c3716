//go:build amd64

package attrs

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

// Collect reads files of /proc, and asks for the rest.
func Collect(t *collect.Tree) error {
	for p := range t.Alive() {
		if err := outside(p); err != nil {
			return err
		}
		p.Ask(func(b *collect.Batch) { inside(b, p.Task) })
	}
	return nil
}

func outside(p *collect.Process) error {
	var err error
	if p.Task.Personality, err = p.Dir.Personality(); err != nil {
		return err
	}
	uid, err := p.Dir.LoginUID()
	if err == nil {
		p.Task.LoginUID = &uid
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	adj, err := p.Dir.OOMScoreAdj()
	if err != nil {
		return err
	}
	p.Task.OOMScoreAdj = new(int32(adj))
	p.Task.CoreFilter, err = coreFilter(p.Dir)
	return err
}

// coreFilter reads coredump_filter; kernels without core dumps have none.
func coreFilter(d proc.Dir) (*uint32, error) {
	filter, err := d.CoreDumpFilter()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &filter, err
}

func inside(b *collect.Batch, task *snapshot.Task) {
	const getRegistrations = 1 << 9 // MEMBARRIER_CMD_GET_REGISTRATIONS (6.3)
	room := b.Room(8)
	subreaper := b.Call(unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, room)
	membarrier := b.Call(unix.SYS_MEMBARRIER, getRegistrations)
	b.Then(func(r *collect.Results) error {
		if _, err := r.Value(subreaper); err != nil {
			return fmt.Errorf("prctl(PR_GET_CHILD_SUBREAPER): %w", err)
		}
		task.Subreaper = collect.Word32(r.Data(room, 4)) != 0
		mask, err := r.Value(membarrier)
		if err == nil {
			task.Membarrier = uint32(mask)
		} else if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) { // older kernels
			return fmt.Errorf("membarrier: %w", err)
		}
		return nil
	})
}
