package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkConfinement refuses a restore for a client that lives under limits which what is restored could not be put under:
// it is made by this process, in this process's namespaces.
func (c *client) checkConfinement() error {
	if len(c.elsewhere) > 0 {
		return refusal(syscall.EPERM, "a restore is only done for a client in the service's own namespaces; this one has other namespaces of the kinds %s",
			strings.Join(c.elsewhere, ", "))
	}
	if same, err := sameFile(procPath(c.PID, "root"), "/"); err != nil || !same {
		return refusal(syscall.EPERM, "a restore is only done for a client in the service's own root directory")
	}
	theirs, err := readStatus(c.PID, c.PID)
	if err != nil {
		return err
	}
	ours, err := readStatus(os.Getpid(), os.Getpid())
	if err != nil {
		return err
	}
	switch {
	case theirs.seccomp != 0 && ours.seccomp == 0:
		return refusal(syscall.EPERM, "the client is under a seccomp filter, which a restored process would not be")
	case theirs.noNewPrivs && !ours.noNewPrivs:
		return refusal(syscall.EPERM, "the client cannot gain privileges (no_new_privs), which a restored process could")
	case ours.capBounding&^theirs.capBounding != 0:
		return refusal(syscall.EPERM, "the client's capability bounding set is smaller than a restored process's would be")
	}
	// The service has started this process in the client's cgroup where it could (version 2).
	theirGroups, err := os.ReadFile(procPath(c.PID, "cgroup"))
	if err != nil {
		return err
	}
	ourGroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	if !bytes.Equal(theirGroups, ourGroups) {
		return refusal(syscall.EPERM, "the client is in a cgroup of its own, and a restored process would not be in it")
	}
	if label := lsmLabel(c.PID); label != "" && label != lsmLabel(os.Getpid()) {
		return refusal(syscall.EPERM, "the client is confined by a security module (%s), which a restored process would not be", label)
	}
	if err := c.alive(); err != nil {
		return err
	}
	return nil
}

// lsmLabel is what the security module calls a process's confinement, "" where there is none.
func lsmLabel(pid int) string {
	text, err := os.ReadFile(procPath(pid, "attr/current"))
	if err != nil {
		return ""
	}
	label := string(bytes.TrimRight(text, "\x00\n"))
	if label == "unconfined" {
		return ""
	}
	return label
}

// resources are the limits of getrlimit(2).
var resources = []int{
	unix.RLIMIT_AS, unix.RLIMIT_CORE, unix.RLIMIT_CPU, unix.RLIMIT_DATA, unix.RLIMIT_FSIZE, unix.RLIMIT_LOCKS,
	unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_NICE, unix.RLIMIT_NOFILE, unix.RLIMIT_NPROC,
	unix.RLIMIT_RSS, unix.RLIMIT_RTPRIO, unix.RLIMIT_RTTIME, unix.RLIMIT_SIGPENDING, unix.RLIMIT_STACK,
}

// confine puts a process that this one has started under the client's limits, before it does anything for the client.
func (c *client) confine(pid int) error {
	for _, resource := range resources {
		var theirs, now unix.Rlimit
		if err := unix.Prlimit(c.PID, resource, nil, &theirs); err != nil {
			return fmt.Errorf("cannot read the client's limits: %w", os.NewSyscallError("prlimit", err))
		}
		if err := unix.Prlimit(pid, resource, nil, &now); err != nil {
			return os.NewSyscallError("prlimit", err)
		}
		lower := unix.Rlimit{Max: min(theirs.Max, now.Max), Cur: min(theirs.Cur, theirs.Max, now.Max)}
		if lower == now {
			continue
		}
		if err := unix.Prlimit(pid, resource, &lower, nil); err != nil {
			return fmt.Errorf("cannot lower a limit to the client's: %w", os.NewSyscallError("prlimit", err))
		}
	}
	// getpriority(2) as a raw call gives 20 minus the nice value.
	theirs, err := unix.Getpriority(unix.PRIO_PROCESS, c.PID)
	if err != nil {
		return os.NewSyscallError("getpriority", err)
	}
	now, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
	if err != nil {
		return os.NewSyscallError("getpriority", err)
	}
	if theirs < now {
		if err := unix.Setpriority(unix.PRIO_PROCESS, pid, 20-theirs); err != nil {
			return os.NewSyscallError("setpriority", err)
		}
	}
	if err := raiseOOMScore(c.PID, pid); err != nil {
		return err
	}
	return c.alive()
}

// raiseOOMScore makes a process at least as good a victim for the out-of-memory killer as the client is.
func raiseOOMScore(client, pid int) error {
	theirs, err := readNumber(procPath(client, "oom_score_adj"))
	if err != nil {
		return err
	}
	now, err := readNumber(procPath(pid, "oom_score_adj"))
	if err != nil || theirs <= now {
		return err
	}
	return os.WriteFile(procPath(pid, "oom_score_adj"), strconv.AppendInt(nil, int64(theirs), 10), 0)
}

func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// cgroupOf returns the directory of the process's cgroup (version 2), "" where there is none to be had.
func cgroupOf(pid int) (string, error) {
	text, err := os.ReadFile(procPath(pid, "cgroup"))
	if err != nil {
		return "", err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return "", nil
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			if strings.Contains(path, "/../") || strings.HasSuffix(path, " (deleted)") {
				return "", errors.New("its cgroup cannot be reached from here")
			}
			return "/sys/fs/cgroup" + path, nil
		}
	}
	return "", nil
}
