//go:build amd64

package timers

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

// Decode reads the timers from the core entry.
func Decode(c *entry.TaskCore, s *snapshot.Task) error {
	if c.Timers == nil {
		return nil
	}
	if n := len(c.Timers.Posix); n > 0 {
		return fmt.Errorf("core of process %d: %w: %d POSIX timers", s.PID, errors.ErrUnsupported, n)
	}
	for i, e := range []*entry.Itimer{&c.Timers.Real, &c.Timers.Virt, &c.Timers.Prof} {
		s.Itimers[i] = snapshot.Itimer{IntervalSec: e.Isec, IntervalUsec: e.Iusec, ValueSec: e.Vsec, ValueUsec: e.Vusec}
	}
	return nil
}

// Apply arms the timers. One that has just fired shows no time left, which would disarm it: its interval begins.
func Apply(p *remote.Process, s *snapshot.Task) error {
	a := p.NewArena()
	for i, t := range s.Itimers {
		if t.ValueSec|t.ValueUsec == 0 {
			t.ValueSec, t.ValueUsec = t.IntervalSec, t.IntervalUsec
		}
		if t.ValueSec|t.ValueUsec != 0 {
			a.Call(unix.SYS_SETITIMER, uint64(i), a.Words(t.IntervalSec, t.IntervalUsec, t.ValueSec, t.ValueUsec), 0)
		}
	}
	return a.Run(p.Threads[0])
}
