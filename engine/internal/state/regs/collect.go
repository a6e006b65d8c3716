//go:build amd64

package regs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect takes the registers as they were found.
func Collect(t *collect.Tree) error {
	var layout *snapshot.XLayout
	for th := range t.Threads() {
		regs, err := registers(th, &layout)
		if err != nil {
			return fmt.Errorf("%s: %w", th.Where(), err)
		}
		th.Snapshot.Registers = regs
		t.Snapshot.Arch = regs.Arch()
		th.Ask(func(b *collect.Batch) { inside(b, t, th) })
	}
	return nil
}

// inside asks where the thread's number is cleared when it ends.
func inside(b *collect.Batch, t *collect.Tree, th *collect.Thread) {
	const getTIDAddress = 40 // PR_GET_TID_ADDRESS
	room := b.Room(8)
	call := b.Call(unix.SYS_PRCTL, getTIDAddress, room)
	b.Then(func(r *collect.Results) error {
		_, err := r.Value(call)
		if errors.Is(err, unix.EINVAL) {
			t.Report.Unsupported(th.Where(), "the kernel does not tell the address of set_tid_address (CONFIG_CHECKPOINT_RESTORE is not set)")
			return nil
		}
		th.Snapshot.ClearTID = collect.Word(r.Data(room, 8))
		return err
	})
}
