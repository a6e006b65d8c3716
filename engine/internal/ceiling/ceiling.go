package ceiling

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
)

// A Rule is one thing that a restored process must not have more of than the client.
type Rule string

// The rules.
const (
	IDs          Rule = "ids"
	Capabilities Rule = "capabilities"
	Bounding     Rule = "bounding set"
	SecureBits   Rule = "secure bits"
	NoNewPrivs   Rule = "no_new_privs"
	Seccomp      Rule = "seccomp"
	Limits       Rule = "limits"
	Label        Rule = "label"
	Cgroup       Rule = "cgroup"
	Namespaces   Rule = "namespaces"
	Root         Rule = "root directory"
	RealTime     Rule = "real-time scheduling"
	Nice         Rule = "nice"
	OOMScore     Rule = "OOM score"
	Owners       Rule = "signal owners"
	LoginUID     Rule = "login uid"
	Ghosts       Rule = "deleted files"
)

// An Excess is an error of [Check]: everything that a tree has more than the client.
type Excess []Violation

// A Violation is one thing that is more than the client has.
type Violation struct {
	Rule Rule
	PID  int // the process, or the thread; 0 for the tree
	Text string
}

// Error lists them.
func (e Excess) Error() string {
	lines := make([]string, len(e))
	for i, v := range e {
		lines[i] = v.Text
		if v.PID != 0 {
			lines[i] = fmt.Sprintf("process %d: %s", v.PID, v.Text)
		}
	}
	return "what is restored would have more than whoever asks for it: " + strings.Join(lines, "; ")
}

// Unwrap says that it is not permitted.
func (e Excess) Unwrap() error { return unix.EPERM }

// Check holds a tree against what the client has. Its error is an [Excess] with everything that is wrong. Rules that are
// named are left out, which is for tests.
func Check(tree *snapshot.Tree, c *Client, without ...Rule) error {
	k := &check{Client: c, tree: tree, off: without}
	k.surroundings()
	for _, t := range tree.Tasks {
		if t.State == snapshot.Dead {
			continue
		}
		k.task(t)
		for _, th := range t.Threads {
			if !th.Exited {
				k.thread(th)
			}
		}
	}
	for _, context := range tree.FSContexts {
		if !k.can(unix.CAP_SYS_CHROOT) && !k.atRoot(context.Root) {
			k.no(Root, 0, "there are processes with a root directory of their own")
		}
	}
	for _, f := range tree.Files {
		k.owner(f)
	}
	for _, g := range tree.Ghosts {
		k.ghost(g)
	}
	if len(k.found) == 0 {
		return nil
	}
	return k.found
}

type check struct {
	*Client
	tree  *snapshot.Tree
	off   []Rule
	found Excess
}

// mostFound bounds how much an error says: a tree can have thousands of threads.
const mostFound = 20

func (k *check) no(rule Rule, pid int, format string, args ...any) {
	for _, r := range k.off {
		if r == rule {
			return
		}
	}
	if len(k.found) < mostFound {
		k.found = append(k.found, Violation{rule, pid, fmt.Sprintf(format, args...)})
	}
}

// can reports whether the client has a capability in effect.
func (c *Client) can(capability int) bool { return c.Effective>>capability&1 != 0 }

// surroundings are what a restored process gets from whoever makes it, and not from the images.
func (k *check) surroundings() {
	if k.Seccomp != snapshot.SeccompOff {
		k.no(Seccomp, 0, "the client is under seccomp, and a restored process would not be under the same filters")
	}
	if k.OwnCgroup && !k.can(unix.CAP_SYS_ADMIN) {
		k.no(Cgroup, 0, "the client is in a cgroup of its own, and a restored process would not be in it")
	}
	if len(k.Elsewhere) > 0 && !k.can(unix.CAP_SYS_ADMIN) {
		k.no(Namespaces, 0, "the client has other namespaces than a restored process would have: %s", strings.Join(k.Elsewhere, ", "))
	}
	if k.OwnRoot && !k.can(unix.CAP_SYS_CHROOT) {
		k.no(Root, 0, "the client has another root directory than a restored process would have")
	}
}

func (k *check) task(t *snapshot.Task) {
	pid := t.PID.Num()
	if dumper := k.tree.Origin.Namespaces; t.Namespaces != dumper && !k.can(unix.CAP_SYS_ADMIN) {
		k.namespaces(pid, t.Namespaces, dumper)
	}
	if !k.can(unix.CAP_SYS_RESOURCE) {
		for n, limit := range t.Limits {
			if n < len(k.Limits) && limit.Hard > k.Limits[n].Hard {
				k.no(Limits, pid, "the hard limit on %s is %s, the client's %s", limitNames[n], amount(limit.Hard), amount(k.Limits[n].Hard))
			}
		}
		if t.OOMScoreAdj != nil && int(*t.OOMScoreAdj) < k.OOMScoreAdj {
			k.no(OOMScore, pid, "oom_score_adj is %d, the client's %d", *t.OOMScoreAdj, k.OOMScoreAdj)
		}
		if t.OOMScoreAdj == nil && k.OOMScoreAdj > 0 {
			k.no(OOMScore, pid, "the images do not tell oom_score_adj, and the client's is %d", k.OOMScoreAdj)
		}
	}
	if k.LoginUID != unsetLogin && !k.can(unix.CAP_AUDIT_CONTROL) && (t.LoginUID == nil || *t.LoginUID != k.LoginUID) {
		k.no(LoginUID, pid, "its login uid is not the client's, which is %d", k.LoginUID)
	}
}

// unsetLogin is the login uid of a process that nobody has logged in for.
const unsetLogin = 1<<32 - 1

// atRoot tells whether a file is the root directory.
func (k *check) atRoot(id snapshot.FileID) bool {
	for _, f := range k.tree.Files {
		if f.ID == id {
			r, ok := f.Object.(*snapshot.Regular)
			return ok && strings.Trim(r.Path.Name, "/.") == ""
		}
	}
	return id == 0
}

func (k *check) namespaces(pid int, own, dumper snapshot.Namespaces) {
	for kind := range own.Own(dumper) {
		k.no(Namespaces, pid, "it has a %s namespace of its own", kind)
	}
}

func (k *check) thread(th *snapshot.Thread) {
	pid, c := th.TID.Num(), &th.Creds
	k.ids(pid, c)
	k.capabilities(pid, c)
	if k.NoNewPrivs && !c.NoNewPrivs {
		k.no(NoNewPrivs, pid, "it could gain privileges, which the client cannot (no_new_privs)")
	}
	if c.LSMProfile != k.Label && !k.can(unix.CAP_MAC_ADMIN) && (c.LSMProfile != "" || k.Label != "") {
		k.no(Label, pid, "its security label is %q, the client's %q", c.LSMProfile, k.Label)
	}
	if c.LSMSockCreate != "" && !k.can(unix.CAP_MAC_ADMIN) {
		k.no(Label, pid, "it has a security label for sockets, %q", c.LSMSockCreate)
	}
	k.scheduling(pid, &th.Scheduling)
}

func (k *check) ids(pid int, c *snapshot.Credentials) {
	if !k.can(unix.CAP_SETUID) {
		for _, uid := range []uint32{c.UID, c.EUID, c.SUID, c.FSUID} {
			if uid != k.UID {
				k.no(IDs, pid, "it has the uid %d, the client %d", uid, k.UID)
				break
			}
		}
	}
	if k.can(unix.CAP_SETGID) {
		return
	}
	for _, gid := range append([]uint32{c.GID, c.EGID, c.SGID, c.FSGID}, c.Groups...) {
		if !k.inGroup(gid) {
			k.no(IDs, pid, "it has the group %d, the client has not", gid)
			break
		}
	}
}

func (c *Client) inGroup(gid uint32) bool {
	if gid == c.GID {
		return true
	}
	for _, g := range c.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// keepCaps are the secure bits that take no privilege: SECBIT_KEEP_CAPS.
const keepCaps = 1 << 4

func (k *check) capabilities(pid int, c *snapshot.Credentials) {
	if more := (c.Permitted | c.Effective | c.Ambient) &^ k.Permitted; more != 0 {
		k.no(Capabilities, pid, "it has capabilities (mask %#x) that the client has not", uint64(more))
	}
	if more := c.Inheritable &^ (k.Permitted | k.Inheritable); more != 0 {
		k.no(Capabilities, pid, "it would hand on capabilities (mask %#x) that the client has not", uint64(more))
	}
	if more := c.Bounding &^ k.Bounding; more != 0 {
		k.no(Bounding, pid, "its bounding set has capabilities (mask %#x) that the client's has not", uint64(more))
	}
	if c.SecureBits&^keepCaps != 0 && !k.can(unix.CAP_SETPCAP) {
		k.no(SecureBits, pid, "it has secure bits (%#x), which take CAP_SETPCAP", c.SecureBits)
	}
}

// Scheduling policies and classes of I/O; see sched(7) and ioprio_set(2).
const (
	schedFIFO     = 1
	schedRR       = 2
	schedIdle     = 5
	schedDeadline = 6
	schedExt      = 7
	resetOnFork   = 1 << 30
	ioClassShift  = 13
	ioRealTime    = 1
)

func (k *check) scheduling(pid int, s *snapshot.Scheduling) {
	if k.can(unix.CAP_SYS_NICE) {
		return
	}
	switch policy := s.Policy &^ resetOnFork; policy {
	case schedFIFO, schedRR:
		own := k.Policy == schedFIFO || k.Policy == schedRR
		if uint64(s.Priority) > k.soft(unix.RLIMIT_RTPRIO) && !(own && s.Priority <= k.Priority) {
			k.no(RealTime, pid, "it runs at the real-time priority %d, which the client may not", s.Priority)
		}
	case schedDeadline, schedExt:
		k.no(RealTime, pid, "it is scheduled by policy %d, which takes CAP_SYS_NICE", policy)
	default:
		if k.Policy == schedIdle && policy != schedIdle && !k.mayNice(s.Nice) {
			k.no(Nice, pid, "it is not scheduled as idle, as the client is")
		}
		if s.Nice < k.Nice && !k.mayNice(s.Nice) {
			k.no(Nice, pid, "its nice value is %d, the client's %d", s.Nice, k.Nice)
		}
	}
	if s.IOPrio != nil && *s.IOPrio>>ioClassShift == ioRealTime && !k.can(unix.CAP_SYS_ADMIN) {
		k.no(RealTime, pid, "its I/O is of the real-time class")
	}
}

// mayNice tells whether the client may lower its nice value so far; see getrlimit(2), RLIMIT_NICE.
func (c *Client) mayNice(nice int32) bool { return uint64(20-nice) <= c.soft(unix.RLIMIT_NICE) }

func (c *Client) soft(resource int) uint64 {
	if resource >= len(c.Limits) {
		return 0
	}
	return c.Limits[resource].Soft
}

// owner looks at whom a file signals, and in whose name.
func (k *check) owner(f *snapshot.File) {
	o := &f.Owner
	if o.PID == 0 || k.can(unix.CAP_KILL) {
		return
	}
	if o.UID != k.UID || o.EUID != k.UID {
		k.no(Owners, 0, "file %d signals process %d in the name of uid %d (effective %d), which the client is not", f.ID, o.PID, o.UID, o.EUID)
	}
}

// ghost looks at a file that is made again, and would be a program that runs as its owner or group for all who can reach it.
func (k *check) ghost(g *snapshot.Ghost) {
	const setGID = 0o2000
	if g.UID != k.UID && !(k.can(unix.CAP_CHOWN) && k.can(unix.CAP_FOWNER)) {
		k.no(Ghosts, 0, "a deleted file belongs to uid %d, which the client is not", g.UID)
	}
	if !k.inGroup(g.GID) && !(k.can(unix.CAP_CHOWN) && (g.Mode&setGID == 0 || k.can(unix.CAP_FSETID))) {
		k.no(Ghosts, 0, "a deleted file belongs to the group %d, which the client has not", g.GID)
	}
}

// limitNames are what is limited, by RLIMIT_ number.
var limitNames = [...]string{
	"CPU time", "file sizes", "data", "the stack", "core files", "resident memory", "processes", "open files", "locked memory",
	"address space", "file locks", "pending signals", "message queues", "nice values", "real-time priorities", "real-time CPU time",
}

func amount(n uint64) string {
	if n == 1<<64-1 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}
