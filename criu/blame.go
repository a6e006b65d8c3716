package criu

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"stasis.example/internal/proc"
)

// blameProcess names what is wrong with the process that was to be dumped, or with the one whose pid is wanted, where a
// pid means the same to the peer:
// CRIU (4.2.1) answers "no such process" for every process that it cannot stop, and dies of an assertion when it is
// given a thread.
func (v *conversation) blameProcess(e *Error) {
	procfs := proc.New(os.DirFS("/proc"))
	swrk, ok := v.client.transport.(*Swrk)
	local := ok && (swrk.SysProcAttr == nil || swrk.SysProcAttr.Cloneflags&syscall.CLONE_NEWPID == 0)
	if !local {
		return
	}
	if e.Errno == 0 && slices.Contains(e.Log, fmt.Sprintf("Unable to detach from %d: No such process", v.pid)) {
		e.Errno = syscall.ESRCH // of a pre-dump, CRIU does not say so
	}
	if errors.Is(e, syscall.EEXIST) {
		e.Err = also(pidHolder(procfs, e.Log), e.Err)
	}
	if v.pid <= 0 || !errors.Is(e, syscall.ESRCH) && !errors.Is(e.Kind, ErrTransport) {
		return
	}
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

// pidHolder says who has the pid that a restore needs and could not get, if that can be seen.
func pidHolder(procfs proc.FS, log []string) error {
	for _, line := range log {
		var pid int
		if n, _ := fmt.Sscanf(line, "Can't fork for %d:", &pid); n != 1 || !strings.HasSuffix(line, ": File exists") {
			continue
		}
		s, err := procfs.Process(pid).Status()
		switch {
		case err != nil: // as a process group or session, or no more
		case s.Tgid != pid:
			return fmt.Errorf("the pid %d is taken by a thread of process %d (%s)", pid, s.Tgid, s.Name)
		case s.State == 'Z', s.State == 'X':
			return fmt.Errorf("the pid %d is taken by a process that has ended, but that its parent, process %d, has not waited for yet", pid, s.PPID)
		default:
			return fmt.Errorf("the pid %d is taken by another process (%s)", pid, s.Name)
		}
	}
	return nil
}
