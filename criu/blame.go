package criu

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"stasis.example/internal/proc"
)

// blameProcess names what is wrong with the process that was to be dumped, where its pid means the same to the peer:
// CRIU (4.2.1) answers "no such process" for every process that it cannot stop, and dies of an assertion when it is
// given a thread.
func (v *conversation) blameProcess(e *Error) {
	swrk, ok := v.client.transport.(*Swrk)
	local := ok && (swrk.SysProcAttr == nil || swrk.SysProcAttr.Cloneflags&syscall.CLONE_NEWPID == 0)
	if !local || v.pid <= 0 || !errors.Is(e, syscall.ESRCH) && !errors.Is(e.Kind, ErrTransport) {
		return
	}
	procfs := proc.New(os.DirFS("/proc"))
	status, err := procfs.Process(v.pid).Status()
	if err != nil {
		return // it is gone, as CRIU says, or cannot be looked at
	}
	if tracer, err := procfs.Process(status.TracerPID).Status(); err == nil && status.TracerPID != 0 {
		status.TracerPID = tracer.Tgid // the kernel names the thread that traces
	}
	blame, thread := blameStatus(v.pid, &status)
	if !thread && !errors.Is(e, syscall.ESRCH) {
		return
	}
	e.present = status.State != 'Z' && status.State != 'X'
	e.Err = also(blame, e.Err)
}

// blameStatus is the reason that a process which is there cannot be stopped.
func blameStatus(pid int, s *proc.Status) (reason error, thread bool) {
	switch {
	case s.Tgid != pid:
		return fmt.Errorf("%d is a thread of process %d, which can only be dumped as a whole", pid, s.Tgid), true
	case s.State == 'Z', s.State == 'X':
		return fmt.Errorf("process %d has ended; its parent, process %d, has not waited for it yet", pid, s.PPID), false
	case s.KernelThread:
		return fmt.Errorf("process %d is a thread of the kernel's", pid), false
	case s.TracerPID != 0:
		return fmt.Errorf("process %d is traced by process %d, a debugger perhaps, and only one can trace it; end that one first", pid, s.TracerPID), false
	}
	return fmt.Errorf("process %d is there, but the peer could not stop it: it may not trace that process (ptrace(2))", pid), false
}
