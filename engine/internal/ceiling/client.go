package ceiling

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

// A Client is what a process has, which what is restored on its behalf must not have more of.
type Client struct {
	UID, GID uint32
	Groups   []uint32

	Permitted, Effective, Inheritable, Bounding snapshot.Capabilities

	NoNewPrivs  bool
	Seccomp     snapshot.SeccompMode
	Limits      []snapshot.Limit // by RLIMIT_ number
	Label       string           // of a security module that confines it; empty for none
	Nice        int32
	Policy      uint32 // a SCHED_ number
	Priority    uint32 // of SCHED_FIFO and SCHED_RR
	OOMScoreAdj int
	LoginUID    uint32 // 4294967295 for none

	// OwnCgroup, OwnRoot and Elsewhere tell what it does not share with this process, in which a restored process would be.
	OwnCgroup bool
	OwnRoot   bool
	Elsewhere []string // kinds of namespaces
}

// Read looks at a process. Its ids are given by whoever knows them from the kernel: those of the connection that it made.
// Whether the pid is still that process's must be checked afterwards.
func Read(pid int, uid, gid uint32, groups []uint32) (*Client, error) {
	root := proc.New(os.DirFS("/proc"))
	d := root.Process(pid)
	status, err := d.Status()
	if err != nil {
		return nil, err
	}
	if status.UID.Effective != uid || status.GID.Effective != gid {
		return nil, fmt.Errorf("process %d has changed its ids since it connected: %w", pid, unix.EPERM)
	}
	stat, err := d.Stat()
	if err != nil {
		return nil, err
	}
	limits, err := d.Limits()
	if err != nil {
		return nil, err
	}
	c := &Client{
		UID: uid, GID: gid, Groups: groups,
		Permitted: snapshot.Capabilities(status.CapPrm), Effective: snapshot.Capabilities(status.CapEff),
		Inheritable: snapshot.Capabilities(status.CapInh), Bounding: snapshot.Capabilities(status.CapBnd),
		NoNewPrivs: status.NoNewPrivs, Seccomp: snapshot.SeccompMode(status.Seccomp),
		Nice: int32(stat.Nice), Policy: stat.Policy, Priority: stat.RTPriority, LoginUID: unsetLogin,
	}
	for _, l := range limits {
		c.Limits = append(c.Limits, snapshot.Limit{Soft: l.Soft, Hard: l.Hard})
	}
	if c.OOMScoreAdj, err = d.OOMScoreAdj(); err != nil {
		return nil, err
	}
	if c.LoginUID, err = d.LoginUID(); errors.Is(err, fs.ErrNotExist) {
		c.LoginUID = unsetLogin // a kernel without auditing
	} else if err != nil {
		return nil, err
	}
	c.Label = label(pid)
	return c, c.compare(root, pid)
}

// compare finds out what the client shares with this process. What cannot be looked at is not shared.
func (c *Client) compare(root proc.FS, pid int) error {
	own := root.Process(os.Getpid())
	theirs, err := root.Process(pid).Cgroup()
	if err != nil {
		return err
	}
	ours, err := own.Cgroup()
	if err != nil {
		return err
	}
	c.OwnCgroup = fmt.Sprint(theirs) != fmt.Sprint(ours)
	for _, kind := range []string{"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"} {
		o, err := own.NS(kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without that kind
		}
		if err != nil {
			return err
		}
		if t, err := root.Process(pid).NS(kind); err != nil || t != o {
			c.Elsewhere = append(c.Elsewhere, kind)
		}
	}
	here, err := os.Stat("/")
	if err != nil {
		return err
	}
	there, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/root")
	c.OwnRoot = err != nil || !os.SameFile(here, there)
	return nil
}

// label is what a security module calls a process's confinement, empty where it is not confined.
func label(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/attr/current")
	if err != nil {
		return ""
	}
	l, _, _ := strings.Cut(string(bytes.TrimRight(text, "\x00\n")), " (") // AppArmor adds the mode
	if l == "unconfined" {
		return ""
	}
	return l
}
