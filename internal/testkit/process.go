package testkit

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is a process that a test has to do with, held by a pidfd: no signal of the test's ever reaches another
// process that got the same pid. When the test ends it is killed, with everything below
// it, and waited for.
type Process struct {
	Pid int

	pidfd int
}

// OpenProcess takes hold of a process: one that the test has started, or one that came to be on its behalf, as by a
// restore.
func OpenProcess(t testing.TB, pid int) *Process {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pidfd_open of process %d: %v", pid, err)
	}
	p := &Process{Pid: pid, pidfd: pidfd}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		_ = unix.Close(pidfd)
	})
	return p
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("send %v to process %d: %w", sig, p.Pid, err)
	}
	return nil
}

// Kill kills the process and everything below it, waits until all are gone and, where they were children of this
// process or have become so, for them.
func (p *Process) Kill() error {
	below, err := descendants(p.Pid)
	if err != nil {
		return err
	}
	family := []*Process{p}
	for _, d := range below {
		pidfd, err := unix.PidfdOpen(d.pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("pidfd_open of process %d: %w", d.pid, err)
		}
		defer unix.Close(pidfd)
		family = append(family, &Process{Pid: d.pid, pidfd: pidfd})
	}
	// Parents first, so that none of them takes note of a child's end.
	for _, member := range family {
		if err := member.Signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	for _, member := range family {
		if _, err := member.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// Gone reports whether the process has exited.
func (p *Process) Gone() bool {
	ready, err := pollIn(0, p.pidfd)
	return err == nil && ready[0]
}

// Wait waits, for at most Patience, until the process has exited. A child that this program started is waited for in the
// sense of wait4, and its status returned; of another process there is none to be had, and the status is zero.
func (p *Process) Wait() (syscall.WaitStatus, error) {
	ready, err := pollIn(Patience, p.pidfd)
	if err != nil {
		return 0, fmt.Errorf("wait for process %d: %w", p.Pid, err)
	}
	if !ready[0] {
		return 0, fmt.Errorf("process %d (%s): %w", p.Pid, p.State(), errTooLate("its end"))
	}
	// Looked at by pidfd first: only of a child of ours that is dead and that nobody has waited for is the pid still its
	// own.
	err = retry(func() error {
		return unix.Waitid(unix.P_PIDFD, p.pidfd, nil, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG|unix.WALL, nil)
	})
	if errors.Is(err, unix.ECHILD) {
		return 0, nil
	}
	var status syscall.WaitStatus
	if err == nil {
		// A child that was killed under a tracer is dead, but not its parent's to wait for until the tracer lets go of it.
		inTime := poll(Patience, func() bool {
			waited := false
			err = retry(func() error {
				pid, err := syscall.Wait4(p.Pid, &status, syscall.WNOHANG|unix.WALL, nil)
				waited = pid == p.Pid
				return err
			})
			return waited || err != nil
		})
		if !inTime {
			err = errTooLate("its tracer")
		}
	}
	if err != nil && !errors.Is(err, unix.ECHILD) { // an orphan, which Main was quicker to bury
		return 0, fmt.Errorf("wait for process %d: %w", p.Pid, err)
	}
	return status, nil
}

// retry calls a system call until no signal interrupts it.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// State returns the states of the process's threads as /proc shows them, one letter each, the leader's first: "SSR".
// It is empty when the process is gone.
func (p *Process) State() string { return taskStates(p.Pid) }

func taskStates(pid int) string {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var states strings.Builder
	for _, entry := range entries {
		if st, err := readStat(dir + "/" + entry.Name() + "/stat"); err == nil {
			states.WriteByte(st.state)
		}
	}
	return states.String()
}

// stat is what the package wants to know from /proc/PID/stat.
type stat struct {
	comm  string
	state byte
	ppid  int
}

// readStat reads a stat file. The name, in parentheses, may contain anything, parentheses included.
func readStat(path string) (stat, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	text := string(data)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("%s: no name in %q", path, text)
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 2 {
		return stat{}, fmt.Errorf("%s: too short: %q", path, text)
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, fmt.Errorf("%s: %w", path, err)
	}
	return stat{comm: text[open+1 : end], state: fields[0][0], ppid: ppid}, nil
}

// pollIn waits until one of the descriptors is readable or the time is over, and says which are.
func pollIn(limit time.Duration, fds ...int) ([]bool, error) {
	polled := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		polled[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	deadline := time.Now().Add(limit)
	for {
		left := max(time.Until(deadline), 0)
		// Rounded up, so that the last round does not spin.
		_, err := unix.Poll(polled, int((left+time.Millisecond-1)/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("poll: %w", err)
		}
		ready := make([]bool, len(fds))
		for i := range polled {
			ready[i] = polled[i].Revents != 0
		}
		return ready, nil
	}
}
