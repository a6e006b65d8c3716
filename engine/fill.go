//go:build amd64

package engine

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
)

// fillPages gives a process its pages.
func (r *restore) fillPages(t *apply.Task, m *plan.Memory) error {
	buf := make([]byte, 1<<20)
	err := r.plan.Walk(r.dir, m, func(run plan.Run) error {
		v := vmaAt(t.Space, run.Start)
		switch {
		case v == nil || v.Kind.OfKernel() || run.Fate == plan.Keep:
			return nil
		case run.Fate == plan.Drop:
			calls := []stub.Call{stub.NewCall(unix.SYS_MADVISE, run.Start, run.Len(), unix.MADV_DONTNEED)}
			return t.Remote.Run(calls)
		}
		r.pages += run.Len() / 4096
		for at := run.Start; at < run.End; {
			v := vmaAt(t.Space, at)
			b := buf[:min(uint64(len(buf)), min(run.End, v.End)-at)]
			if _, err := run.File.ReadAt(b, run.Offset+int64(at-run.Start)); err != nil {
				return err
			}
			write := t.Remote.Write
			if v.Prot&unix.PROT_WRITE == 0 {
				write = t.Remote.Force
			}
			if err := write(at, b); err != nil {
				return err
			}
			at += uint64(len(b))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: pages: %w", t.Where(), err)
	}
	return nil
}

func vmaAt(s *snapshot.Space, addr uint64) *snapshot.VMA {
	for i := range s.VMAs {
		if v := &s.VMAs[i]; addr >= v.Start && addr < v.End {
			return v
		}
	}
	return nil
}
