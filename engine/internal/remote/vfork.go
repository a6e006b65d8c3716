//go:build amd64

package remote

import (
	"errors"
	"fmt"
	"time"

	"stasis.example/engine/internal/ptrace"
	"stasis.example/internal/linux"
)

// vforkPatience is how long a child of vfork may take until it has executed a program or ended. Shells, compilers and whoever else
// uses posix_spawn need less than a millisecond for that; on a machine that is busy it is some more.
const vforkPatience = time.Second

// settle waits until the thread has stopped. One that waits in vfork stops only when its child has executed a program or ended
// (kernel/fork.c: wait_for_vfork_done). The child is not stopped before its parent, and so runs on meanwhile.
func (th *Thread) settle() (ptrace.Stop, error) {
	s, err := th.SettleWithin(vforkPatience)
	if !errors.Is(err, ptrace.ErrTimeout) {
		return s, err
	}
	if th.waits() {
		return s, fmt.Errorf("%w: it waits in vfork for %s, which has neither executed a program nor ended for %v: dump it when it has", err, th.vforked(), vforkPatience)
	}
	return th.Settle()
}

// waits tells whether the thread has not stopped since it waits in vfork.
func (th *Thread) waits() bool { return !th.Stopped() && InVFork(th.p.PID, th.TID) }

// vforked names the child that the thread waits for.
func (th *Thread) vforked() string {
	pids, _ := th.Tracer().Proc().Thread(th.p.PID, th.TID).Children()
	for _, pid := range pids {
		if same, err := th.p.kernel.Same(th.TID, pid, linux.SameVM, 0, 0); err == nil && same {
			return fmt.Sprintf("process %d", pid)
		}
	}
	return "a child"
}
