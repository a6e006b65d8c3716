package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// taskStatus is what the reasons are found in. (internal/proc reads all of the file, and adds 150 KiB to every program that
// links the client.)
type taskStatus struct {
	name                 string
	state                byte
	tgid, parent, tracer int
	kernel               bool
}

// readStatus reads /proc/PID/status, of which a line reads "Tgid:\t42".
func readStatus(pid int) (s taskStatus, err error) {
	text, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		number, _ := strconv.Atoi(value)
		switch key {
		case "Name":
			s.name = value
		case "State":
			s.state = (value + " ")[0]
		case "Tgid":
			s.tgid = number
		case "PPid":
			s.parent = number
		case "TracerPid":
			s.tracer = number
		case "Kthread":
			s.kernel = number == 1
		}
	}
	return s, nil
}

func (s *taskStatus) ended() bool { return s.state == 'Z' || s.state == 'X' }

// blameProcess names what is wrong with the process that was to be dumped, or with the one whose pid is wanted, where a
// pid means the same to the peer. CRIU (4.2.1) answers "no such process" for every process that it cannot stop, and
// dies of an assertion when it is given a thread.
func (v *conversation) blameProcess(e *Error) {
	swrk, ok := v.client.transport.(*Swrk)
	local := ok && (swrk.SysProcAttr == nil || swrk.SysProcAttr.Cloneflags&syscall.CLONE_NEWPID == 0)
	if !local {
		return
	}
	if errors.Is(e, syscall.EEXIST) {
		e.Err = also(pidHolder(e.Log), e.Err)
	}
	if v.pid <= 0 {
		return
	}
	frozen := v.stage != "" && v.stage != "pre-dump"
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", v.pid)); e.Errno == 0 && !frozen && errors.Is(err, fs.ErrNotExist) && errors.Is(e.Kind, ErrFailed) {
		e.Errno = syscall.ESRCH // of a pre-dump, CRIU does not say so
	}
	if !errors.Is(e, syscall.ESRCH) && !errors.Is(e.Kind, ErrTransport) {
		return
	}
	status, err := readStatus(v.pid)
	if err != nil {
		return // it is gone, as CRIU says, or cannot be looked at
	}
	if tracer, err := readStatus(status.tracer); err == nil {
		status.tracer = tracer.tgid // the kernel names the thread that traces
	}
	blame, thread := blameStatus(v.pid, &status)
	if blame == nil || !thread && !errors.Is(e, syscall.ESRCH) {
		return // nothing speaks against what the peer says
	}
	e.present = !status.ended()
	e.Err = also(blame, e.Err)
}

// blameStatus is the reason that a process which is there cannot be stopped, if it can be seen.
func blameStatus(pid int, s *taskStatus) (reason error, thread bool) {
	switch {
	case s.tgid != pid:
		return fmt.Errorf("%d is a thread of process %d, which can only be dumped as a whole", pid, s.tgid), true
	case s.ended():
		return fmt.Errorf("process %d has ended; its parent, process %d, has not waited for it yet", pid, s.parent), false
	case s.kernel:
		return fmt.Errorf("process %d is a thread of the kernel's", pid), false
	case s.tracer != 0:
		return fmt.Errorf("process %d is traced by process %d, a debugger perhaps, and only one can trace it; end that one first", pid, s.tracer), false
	}
	return nil, false
}

// pidHolder says who has the pid that a restore needs and could not get, if that can be seen.
func pidHolder(log []string) error {
	for _, line := range log {
		number, found := strings.CutPrefix(line, "Can't fork for ")
		number, exists := strings.CutSuffix(number, ": File exists")
		pid, err := strconv.Atoi(number)
		if !found || !exists || err != nil {
			continue
		}
		s, err := readStatus(pid)
		switch {
		case err != nil: // as a process group or session, or no more
		case s.tgid != pid:
			return fmt.Errorf("the pid %d is taken by a thread of process %d (%s)", pid, s.tgid, s.name)
		case s.ended():
			return fmt.Errorf("the pid %d is taken by a process that has ended, but that its parent, process %d, has not waited for yet", pid, s.parent)
		default:
			return fmt.Errorf("the pid %d is taken by another process (%s)", pid, s.name)
		}
	}
	return nil
}
