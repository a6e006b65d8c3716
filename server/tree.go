package server

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxTree bounds how many threads of a tree are looked at, which a client could otherwise keep a worker busy with.
const maxTree = 1 << 16

// tree is a process tree that a client wants dumped, held by its root.
type tree struct {
	pid   int
	pidfd *os.File
}

func (t *tree) close() {
	if t != nil {
		t.pidfd.Close()
	}
}

// holdTree takes hold of the tree below pid, a number of the client's pid namespace.
func (c *client) holdTree(pid int32, r rules) (*tree, error) {
	if pid <= 0 {
		return nil, refusal(syscall.EINVAL, "%d is no pid", pid)
	}
	own := int(pid)
	if r.translate && !c.shares("pid") {
		var err error
		if own, err = c.translate(int(pid)); err != nil {
			return nil, err
		}
	}
	return holdProcess(own)
}

// holdProcess takes hold of the tree below pid, a number of this process's pid namespace.
func holdProcess(pid int) (*tree, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // a thread; the number of none
			return nil, refusal(syscall.EINVAL, "pid %d is a thread of another process", pid)
		}
		return nil, refusal(errnoOf(err), "no process has the pid %d", pid)
	}
	return &tree{pid: pid, pidfd: os.NewFile(uintptr(fd), "root of the tree")}, nil
}

// translate finds the process that has a pid in the client's pid namespace.
func (c *client) translate(pid int) (int, error) {
	theirs, err := os.Readlink(procPath(c.PID, "ns/pid"))
	if err != nil {
		return 0, refusal(syscall.EPERM, "the client is in a pid namespace that may not be looked at, so the pid %d cannot be translated", pid)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		candidate, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		status, err := readStatus(candidate, candidate)
		if err != nil || len(status.nsPIDs) == 0 || status.nsPIDs[len(status.nsPIDs)-1] != pid {
			continue
		}
		if ns, err := os.Readlink(procPath(candidate, "ns/pid")); err == nil && ns == theirs {
			return candidate, nil
		}
	}
	return 0, refusal(syscall.ESRCH, "no process of the client's pid namespace has the pid %d, or it may not be looked at", pid)
}

// owns is nil when the whole tree is the client's own: every thread of every process has the client's ids and no more
// capabilities than the client, can be dumped, and runs a program that gave it no rights.
func (c *client) owns(t *tree) error {
	if err := unix.PidfdSendSignal(int(t.pidfd.Fd()), 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return refusal(syscall.ESRCH, "process %d is gone", t.pid)
	}
	limit, err := readStatus(c.PID, c.PID)
	if err != nil {
		return c.gone(allRules(), err)
	}
	queue, seen := []int{t.pid}, 0
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		tasks, err := os.ReadDir(procPath(pid, "task"))
		if err != nil {
			if errors.Is(err, os.ErrNotExist) && pid != t.pid {
				continue // it has ended meanwhile
			}
			return refusal(syscall.EPERM, "cannot look at the threads of process %d: %w", pid, err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			if seen++; seen > maxTree {
				return refusal(syscall.E2BIG, "the tree of process %d has more than %d threads", t.pid, maxTree)
			}
			if err := c.ownsThread(pid, tid, limit.capPermitted); err != nil {
				return err
			}
			below, err := childrenOf(pid, tid)
			if err != nil {
				return err
			}
			queue = append(queue, below...)
		}
		if err := c.ownsProgram(pid); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) ownsThread(pid, tid int, caps uint64) error {
	s, err := readStatus(pid, tid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil // it has ended meanwhile
	}
	if err != nil {
		return refusal(syscall.EPERM, "cannot look at thread %d of process %d: %w", tid, pid, err)
	}
	no := func(what string, args ...any) error {
		return refusal(syscall.EPERM, "thread %d of process %d is not wholly the client's (uid %d): %s", tid, pid, c.UID, fmt.Sprintf(what, args...))
	}
	for _, uid := range s.uids {
		if uid != c.UID {
			return no("its uids are %v", s.uids)
		}
	}
	for _, gid := range slices.Concat(s.gids, s.groups) {
		if gid != c.GID && !slices.Contains(c.Groups, gid) {
			return no("it has the group %d, which the client has not", gid)
		}
	}
	if more := (s.capPermitted | s.capInheritable | s.capAmbient) &^ caps; more != 0 {
		return no("it has capabilities (mask %#x) that the client has not", more)
	}
	if s.owner != c.UID {
		return no("it cannot be dumped (prctl(2), PR_SET_DUMPABLE)")
	}
	return nil
}

// ownsProgram refuses a process that runs a program with the set-user-ID or set-group-ID bit of somebody else's or with
// capabilities of its own, whatever its ids are now.
func (c *client) ownsProgram(pid int) error {
	path := procPath(pid, "exe")
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil // a zombie, or gone
	}
	if err != nil {
		return refusal(syscall.EPERM, "cannot look at the program of process %d: %w", pid, err)
	}
	if st.Mode&unix.S_ISUID != 0 && st.Uid != c.UID || st.Mode&unix.S_ISGID != 0 && st.Gid != c.GID && !slices.Contains(c.Groups, st.Gid) {
		return refusal(syscall.EPERM, "process %d runs a set-user-ID or set-group-ID program", pid)
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	if err == nil && n > 0 {
		return refusal(syscall.EPERM, "process %d runs a program with capabilities of its own", pid)
	}
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
		return refusal(syscall.EPERM, "cannot look at the capabilities of the program of process %d: %w", pid, err)
	}
	return nil
}

// childrenOf lists the children of a thread (proc_pid_task_children(5); CONFIG_PROC_CHILDREN).
func childrenOf(pid, tid int) (list []int, err error) {
	text, err := os.ReadFile(procPath(pid, "task/"+strconv.Itoa(tid)+"/children"))
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		if _, statErr := os.Stat("/proc/thread-self/children"); statErr != nil {
			return nil, refusal(syscall.ENOSYS, "this kernel cannot list the children of a process (CONFIG_PROC_CHILDREN), without which only root is served")
		}
		return nil, nil // it has ended meanwhile
	case err != nil:
		return nil, refusal(syscall.EPERM, "cannot list the children of process %d: %w", pid, err)
	}
	for field := range strings.FieldsSeq(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("the children of process %d: %w", pid, err)
		}
		list = append(list, child)
	}
	return list, nil
}
