//go:build amd64

package engine

import (
	"fmt"
	"iter"
	"os"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/plan"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/state/mm"
	"stasis.example/internal/proc"
)

// ownVDSO reads the vDSO of this kernel, which this program has too; nil where it has none.
func ownVDSO() (*mm.VDSO, error) {
	mappings, err := proc.New(os.DirFS("/proc")).Process(os.Getpid()).Maps()
	if err != nil {
		return nil, err
	}
	v, data := &mm.VDSO{}, uint64(0)
	for _, m := range mappings {
		switch m.Path {
		case "[vvar]":
			data = m.Start
		case "[vdso]":
			if data != 0 {
				v.Data = m.Start - data
			}
			v.Code = make([]byte, m.End-m.Start)
			memory, err := os.Open("/proc/self/mem")
			if err != nil {
				return nil, err
			}
			defer memory.Close()
			if _, err := memory.ReadAt(v.Code, int64(m.Start)); err != nil {
				return nil, fmt.Errorf("this program's vDSO: %w", err)
			}
			return v, nil
		}
	}
	return nil, nil
}

// adaptVDSO lets address spaces have this kernel's vDSO whose own is another's.
func (r *restore) adaptVDSO() error {
	own, err := ownVDSO()
	if err != nil {
		return err
	}
	spaces := byID(r.plan.Tree.Spaces, func(s *snapshot.Space) snapshot.ObjectID { return s.ID })
	var foreign []*plan.Memory
	room := uint64(0)
	for i := range r.plan.Memory {
		m := &r.plan.Memory[i]
		if m.VDSO == nil || own != nil && !r.otherVDSO && own.Same(spaces[m.Space], m.VDSO, r.pointers(m.Space)) {
			continue
		}
		if own == nil {
			return fmt.Errorf("process %d has a vDSO, and this kernel has none (vdso=0)", m.PID)
		}
		foreign, room = append(foreign, m), max(room, own.Room(spaces[m.Space]))
	}
	if len(foreign) == 0 {
		return nil
	}
	// One place for all, that is free in all spaces.
	hole, err := r.plan.Hole(room)
	if err != nil {
		return err
	}
	r.patches = make(map[snapshot.ObjectID][]mm.Patch)
	for _, m := range foreign {
		moved, err := own.Move(spaces[m.Space], m.VDSO, r.pointers(m.Space), hole.Start)
		if err != nil {
			return fmt.Errorf("process %d: %w", m.PID, err)
		}
		for regs := range r.registers(m.Space) {
			if to, ok := moved.Pointers[regs.IP]; ok {
				regs.IP = to
			}
		}
		r.patches[m.Space] = moved.Patches
		r.log.info("process %d has the vDSO of another kernel: its functions lead to this one's", m.PID)
	}
	return nil
}

// registers goes through the registers of all threads that have an address space.
func (r *restore) registers(space snapshot.ObjectID) iter.Seq[*snapshot.AMD64Registers] {
	return func(yield func(*snapshot.AMD64Registers) bool) {
		for _, t := range r.plan.Tree.Tasks {
			if t.Space != space || t.State == snapshot.Dead {
				continue
			}
			for _, th := range t.Threads {
				if regs, ok := th.Registers.(*snapshot.AMD64Registers); ok && !yield(regs) {
					return
				}
			}
		}
	}
}

// pointers returns the instruction pointers of all threads that have an address space.
func (r *restore) pointers(space snapshot.ObjectID) []uint64 {
	var all []uint64
	for regs := range r.registers(space) {
		all = append(all, regs.IP)
	}
	return all
}

// patchVDSO writes the jumps over the code of another kernel's vDSO.
func (r *restore) patchVDSO(t *apply.Task) error {
	for _, p := range r.patches[t.Space.ID] {
		if err := t.Remote.Force(p.Addr, p.Code); err != nil {
			return fmt.Errorf("%s: vDSO: %w", t.Where(), err)
		}
	}
	return nil
}
