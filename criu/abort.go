package criu

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// abortGrace bounds how long Abort waits for what it killed to be gone.
const abortGrace = 5 * time.Second

// Abort kills a child that does not answer. A CRIU that is killed in the middle of a restore leaves what it has made
// asleep under the pids of the tree, and the next restore fails; so the half-made tree goes first. The peer is stopped
// before that, or it would go on making processes. Once it has reported success the tree is no longer its to lose: the
// peer alone is killed, and leaves the tree to init.
func (c *swrkConn) Abort() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted || c.reaped {
		return c.aborted
	}
	peer, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(peer)
	if born, err := startTime(c.pid); err != nil || born != c.born {
		return false // another process by now
	}
	c.aborted = true
	unix.PidfdSendSignal(peer, unix.SIGSTOP, nil, 0)
	var killed []int
	if !c.restores || !c.succeeded.Load() {
		killed = c.killTree(peer)
	}
	unix.PidfdSendSignal(peer, unix.SIGKILL, nil, 0)
	awaitEnd(append(killed, peer))
	for _, fd := range killed {
		// What was restored as a sibling is our own child: take its status, or its pid stays taken.
		unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil)
		unix.Close(fd)
	}
	return true
}

// killOrphans kills what a peer that died has left: whatever holds the peer's end of the RPC socket, which all that it
// makes inherits and a restored task closes late, and what has a pid of the tree and is younger than the peer; with all
// below them. They are orphans by now and have another parent. A helper of a dump's may be stopped, and never end.
func (c *swrkConn) killOrphans() {
	var killed []int
	defer func() {
		awaitEnd(killed)
		for _, fd := range killed {
			unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil) // where they have become our own
			unix.Close(fd)
		}
	}()
	seen := map[int]bool{os.Getpid(): true}
	for range 100 {
		found := false
		for roots := c.orphans(); len(roots) > 0; roots = roots[1:] {
			pid := roots[0]
			roots = append(roots, children(pid)...)
			if seen[pid] {
				continue
			}
			seen[pid] = true
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				killed = append(killed, fd)
				found = true
			}
		}
		if !found {
			return
		}
	}
}

// orphans finds the roots of what killOrphans kills.
func (c *swrkConn) orphans() (roots []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if born, err := startTime(pid); err != nil || born < c.born {
			continue
		}
		if pid == int(c.rootTask.Load()) || slices.Contains(c.tree, pid) || c.holdsSocket(pid) {
			roots = append(roots, pid)
		}
	}
	return roots
}

// killTree kills every descendant of the peer, and the tree that it has made as its sibling. It returns pidfds of what
// it killed. Because a tree may grow while it is walked, the walk is repeated until it finds nothing alive.
func (c *swrkConn) killTree(peer int) (killed []int) {
	seen := map[int]bool{c.pid: true}
	for range 100 {
		found := false
		roots := append([]int{c.pid}, c.siblings()...)
		for i := 0; i < len(roots); i++ {
			pid := roots[i]
			roots = append(roots, children(pid)...)
			if seen[pid] {
				continue
			}
			seen[pid] = true
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				killed = append(killed, fd)
				found = true
			}
		}
		if !found {
			break
		}
	}
	return killed
}

// siblings finds the roots of trees that the peer has made as children of this process (CLONE_PARENT): our children, not
// older than the peer, that it traces, that still run its program or that hold its end of the RPC socket.
func (c *swrkConn) siblings() (roots []int) {
	if !c.restores {
		return nil // what a dump traces is the caller's, and may have been started in the same clock tick
	}
	for _, pid := range children(os.Getpid()) {
		if pid == c.pid {
			continue
		}
		if born, err := startTime(pid); err != nil || born < c.born {
			continue
		}
		if pid == int(c.rootTask.Load()) || tracer(pid) == c.pid || c.runsPeersProgram(pid) || c.holdsSocket(pid) {
			roots = append(roots, pid)
		}
	}
	return roots
}

func (c *swrkConn) runsPeersProgram(pid int) bool {
	var a, b unix.Stat_t
	return unix.Stat(procPath(pid, "exe"), &a) == nil && unix.Stat(procPath(c.pid, "exe"), &b) == nil &&
		a.Dev == b.Dev && a.Ino == b.Ino
}

func (c *swrkConn) holdsSocket(pid int) bool {
	entries, err := os.ReadDir(procPath(pid, "fd"))
	if err != nil {
		return false
	}
	want := fmt.Sprintf("socket:[%d]", c.inode)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		target, err := os.Readlink(procPath(pid, "fd/"+e.Name()))
		return err == nil && target == want
	})
}

// awaitEnd waits until all processes have ended.
func awaitEnd(pidfds []int) {
	deadline := time.Now().Add(abortGrace)
	for _, fd := range pidfds {
		for {
			left := time.Until(deadline)
			if left <= 0 {
				return
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			if err == nil && n > 0 {
				break
			}
		}
	}
}

func procPath(pid int, name string) string { return "/proc/" + itoa(pid) + "/" + name }

// children lists the children of all of a process' threads (proc_pid_task_children(5); CONFIG_PROC_CHILDREN).
func children(pid int) (list []int) {
	tasks, err := os.ReadDir(procPath(pid, "task"))
	if err != nil {
		return nil
	}
	for _, t := range tasks {
		text, err := os.ReadFile(procPath(pid, "task/"+t.Name()+"/children"))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// startTime is when a process started, in clock ticks since boot (field 22 of /proc/PID/stat, proc_pid_stat(5)).
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" ")) // the name may hold anything
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has an unexpected form", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// tracer is the pid of the process that traces pid, 0 for none.
func tracer(pid int) int {
	text, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(value))
			return n
		}
	}
	return 0
}
