//go:build amd64

package attrs

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/internal/linux"
)

// Collect reads files of /proc, and asks for the rest.
func Collect(t *collect.Tree) error {
	for p := range t.Alive() {
		if err := outside(p); err != nil {
			return err
		}
		inside(p)
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
	p.Task.CoreFilter, err = coreFilter(p.Path("coredump_filter"))
	return err
}

// coreFilter reads a coredump_filter; kernels without core dumps have none.
func coreFilter(name string) (*uint32, error) {
	text, err := linux.ReadProc(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	filter, err := strconv.ParseUint(strings.TrimSpace(string(text)), 16, 32)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return new(uint32(filter)), nil
}

func inside(p *collect.Process) {
	const getRegistrations = 1 << 9 // MEMBARRIER_CMD_GET_REGISTRATIONS (6.3)
	room := p.Inside.Room(8)
	subreaper := p.Inside.Call(unix.SYS_PRCTL, collect.Num(unix.PR_GET_CHILD_SUBREAPER), room)
	membarrier := p.Inside.Call(unix.SYS_MEMBARRIER, collect.Num(getRegistrations))
	p.Inside.Then(func(r *collect.Results) error {
		if _, err := r.Value(subreaper); err != nil {
			return fmt.Errorf("prctl(PR_GET_CHILD_SUBREAPER): %w", err)
		}
		p.Task.Subreaper = collect.Word32(r.Data(room, 4)) != 0
		mask, err := r.Value(membarrier)
		if err == nil {
			p.Task.Membarrier = uint32(mask)
		} else if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) { // older kernels
			return fmt.Errorf("membarrier: %w", err)
		}
		return nil
	})
}
