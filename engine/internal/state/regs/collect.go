//go:build amd64

package regs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
)

// Collect takes the registers as they were found.
func Collect(t *collect.Tree) error {
	for th := range t.Threads() {
		regs, err := registers(th)
		if err != nil {
			return fmt.Errorf("%s: %w", th.Where(), err)
		}
		th.Snapshot.Registers = regs
		t.Snapshot.Arch = regs.Arch()
		const getTIDAddress = 40 // PR_GET_TID_ADDRESS
		room := th.Inside.Room(8)
		call := th.Inside.Call(unix.SYS_PRCTL, collect.Num(getTIDAddress), room)
		th.Inside.Then(func(r *collect.Results) error {
			_, err := r.Value(call)
			if errors.Is(err, unix.EINVAL) {
				t.Report.Unsupported(th.Where(), "the kernel does not tell the address of set_tid_address (CONFIG_CHECKPOINT_RESTORE is not set)")
				return nil
			}
			th.Snapshot.ClearTID = collect.Word(r.Data(room, 8))
			return err
		})
	}
	return nil
}
