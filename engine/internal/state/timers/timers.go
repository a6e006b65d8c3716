//go:build amd64

package timers

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/remote"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
	"stasis.example/internal/proc"
)

// Collect reads the interval timers.
func Collect(p *remote.Process, dir proc.Dir, s *snapshot.Task) error {
	posix, err := dir.Timers()
	if err != nil {
		return err
	}
	if len(posix) > 0 {
		return fmt.Errorf("process %d: %w: it has %d POSIX timers, which cannot be checkpointed yet", p.PID, errors.ErrUnsupported, len(posix))
	}
	const size = 32 // of struct itimerval
	at, _ := p.Data()
	calls := make([]remote.Call, len(s.Itimers))
	for i := range calls {
		calls[i] = remote.NewCall(unix.SYS_GETITIMER, uint64(i), at+uint64(i)*size)
	}
	if err := errors.Join(p.Run(calls), remote.Must(calls)); err != nil {
		return err
	}
	var b [3 * size]byte
	if err := p.Read(at, b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	for i := range s.Itimers {
		t := b[i*size:]
		s.Itimers[i] = snapshot.Itimer{IntervalSec: le.Uint64(t), IntervalUsec: le.Uint64(t[8:]), ValueSec: le.Uint64(t[16:]), ValueUsec: le.Uint64(t[24:])}
	}
	return nil
}

// Encode puts the timers into the core entry.
func Encode(s *snapshot.Task, c *entry.TaskCore) {
	e := make([]entry.Itimer, len(s.Itimers))
	for i, t := range s.Itimers {
		e[i] = entry.Itimer{Isec: t.IntervalSec, Iusec: t.IntervalUsec, Vsec: t.ValueSec, Vusec: t.ValueUsec}
	}
	c.Timers = &entry.TaskTimers{Real: e[0], Virt: e[1], Prof: e[2]}
}
