package server

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/internal/linux"
)

// trust is how far a client's word goes.
type trust int

const (
	// untrusted clients are worked for with their own rights.
	untrusted trust = iota
	// trusted clients could do by themselves whatever this process can do for them.
	trusted
	// direct clients have started this process for themselves (swrk): descriptors can be inherited from them and the
	// tree can become their child.
	direct
)

func (t trust) String() string {
	return map[trust]string{untrusted: "not root", trusted: "root", direct: "parent"}[t]
}

// client is the process at the other end of a conversation.
type client struct {
	criu.Caller
	trust trust
	// why says what keeps an untrusted client with uid 0 from being root here.
	why string
	// elsewhere lists the kinds of namespaces that the client does not share with this process.
	elsewhere []string
}

func (c *client) close() {
	if c.PIDFD != nil {
		c.PIDFD.Close()
	}
}

func (c *client) String() string {
	return fmt.Sprintf("pid %d, uid %d (%v)", c.PID, c.UID, c.trust)
}

// shares reports whether the client lives in this process's namespace of a kind.
func (c *client) shares(kind string) bool {
	for _, k := range c.elsewhere {
		if k == kind {
			return false
		}
	}
	return true
}

// Files below /proc/PID/ns, which a process's own view and reach depend on: those that root shares with this process, and others.
var (
	rootKinds = []string{"user", "pid", "mnt"}
	// Not that of time: it is nobody's right, and a restore gives each tree one.
	otherKinds = []string{"net", "ipc", "uts", "cgroup"}
)

// identify finds out who is at the other end of a connected socket. What the kernel noted when the client connected
// (uid, gid, groups, and the process itself) decides; what /proc says about the process now can only take away.
func identify(fd int, r rules, own *self) (*client, error) {
	c, err := peerOf(fd, r)
	if err != nil {
		return nil, err
	}
	if err := c.examine(r, own); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// peerOf is what the kernel noted of the process that connected.
func peerOf(fd int, r rules) (*client, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	c := &client{Caller: criu.Caller{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}}
	if c.PID == 0 {
		return nil, errors.New("the client is in a pid namespace that cannot be seen from here")
	}
	if c.Groups, err = linux.PeerGroups(fd); err != nil {
		return nil, err
	}
	if c.PIDFD, err = holdPeer(fd, c, r); err != nil {
		return nil, err
	}
	return c, nil
}

// holdPeer returns a pidfd of the process that made the connection.
func holdPeer(fd int, c *client, r rules) (*os.File, error) {
	var pidfd int
	err := error(unix.ENOPROTOOPT)
	if r.peerPIDFD {
		pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}
	if errors.Is(err, unix.ENOPROTOOPT) && (c.UID == 0 || !r.peerPIDFD) {
		// Linux before 6.5. The pid may be another process's by now; that one, too, must turn out to be root.
		pidfd, err = unix.PidfdOpen(c.PID, 0)
	}
	switch {
	case errors.Is(err, unix.ENOPROTOOPT):
		return nil, fmt.Errorf("this kernel cannot hold on to the process that connected (SO_PEERPIDFD, Linux 6.5), without which only root is served: %w", err)
	case err != nil:
		return nil, fmt.Errorf("the process that connected, pid %d, is gone: %w", c.PID, err)
	}
	unix.CloseOnExec(pidfd)
	return os.NewFile(uintptr(pidfd), "client process"), nil
}

// alive is an error when the client's process has ended, so that its pid may mean another process.
func (c *client) alive() error {
	if err := unix.PidfdSendSignal(int(c.PIDFD.Fd()), 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("the process that connected, pid %d, is gone: %w", c.PID, err)
	}
	return nil
}

// self is what clients are compared with: this process, which does not change.
type self struct {
	caps       capabilities
	namespaces map[string]fileID // of the kinds that the kernel has
}

// fileID is what tells files from each other.
type fileID struct{ dev, ino uint64 }

func lookAtSelf() (*self, error) {
	if err := (linux.Proc{}).Ours(); err != nil {
		return nil, err
	}
	pid := os.Getpid()
	caps, err := capabilitiesOf(pid)
	if err != nil {
		return nil, err
	}
	s := &self{caps, make(map[string]fileID)}
	for _, kind := range slices.Concat(rootKinds, otherKinds) {
		id, err := identity(procPath(pid, "ns/"+kind))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.namespaces[kind] = id
	}
	return s, nil
}

// identity of the file that a path leads to, symbolic links followed.
func identity(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{st.Dev, st.Ino}, nil
}

// examine decides on trust.
func (c *client) examine(r rules, own *self) error {
	caps, err := capabilitiesOf(c.PID)
	if err != nil {
		return c.gone(r, err)
	}
	c.compareNamespaces(own, rootKinds)
	c.why = c.notRoot(caps, own.caps, r)
	if c.why == "" {
		c.trust = trusted
	} else {
		c.compareNamespaces(own, otherKinds) // root has left them by itself if it has
	}
	if r.peerPIDFD {
		// All that was read is the client's only if it has lived until now.
		if err := c.alive(); err != nil {
			return err
		}
	}
	return nil
}

// compareNamespaces finds the kinds of namespaces that the client does not share with this process.
func (c *client) compareNamespaces(own *self, kinds []string) {
	for _, kind := range kinds {
		ours, has := own.namespaces[kind]
		if !has {
			continue // the kernel lacks the kind
		}
		// What cannot be looked at is not ours.
		if theirs, err := identity(procPath(c.PID, "ns/"+kind)); err != nil || theirs != ours {
			c.elsewhere = append(c.elsewhere, kind)
		}
	}
}

func (c *client) aliveOrOff(r rules) error {
	if !r.peerPIDFD {
		return nil
	}
	return c.alive()
}

func (c *client) gone(r rules, err error) error {
	if gone := c.aliveOrOff(r); gone != nil {
		return gone
	}
	return fmt.Errorf("cannot look at the client, pid %d: %w", c.PID, err)
}

// notRoot says why a client cannot be trusted; "" means that it can be.
func (c *client) notRoot(theirs, ours capabilities, r rules) string {
	own := uint32(os.Geteuid())
	if c.UID != own {
		return fmt.Sprintf("its uid is %d", c.UID)
	}
	if !r.rootIsRoot {
		return ""
	}
	for _, kind := range rootKinds {
		if !c.shares(kind) {
			return fmt.Sprintf("it is in another %s namespace", kind)
		}
	}
	if own == 0 && theirs.effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return "it lacks CAP_SYS_ADMIN"
	}
	if own != 0 && ours.permitted&^theirs.permitted != 0 {
		return "it lacks capabilities that this service has"
	}
	return ""
}

// capabilities of a process that decide on trust.
type capabilities struct{ permitted, effective uint64 }

func capabilitiesOf(pid int) (capabilities, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(pid)}
	var words [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&header, &words[0]); err != nil {
		return capabilities{}, os.NewSyscallError("capget", err)
	}
	both := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return capabilities{both(words[0].Permitted, words[1].Permitted), both(words[0].Effective, words[1].Effective)}, nil
}

// taskStatus is what /proc/PID/task/TID/status says about a thread's credentials (proc_pid_status(5)).
type taskStatus struct {
	uids, gids     []uint32 // real, effective, saved, file system
	groups         []uint32
	nsPIDs         []int // its pid in each pid namespace from the reader's down to its own
	capInheritable uint64
	capPermitted   uint64
	capBounding    uint64
	capAmbient     uint64
	noNewPrivs     bool
	seccomp        int
	owner          uint32 // of the file: 0 where the process is not dumpable, else its effective uid
}

func readStatus(pid, tid int) (*taskStatus, error) {
	// By hand: every client is looked at, and package os asks the kernel thrice as much.
	path := procPath(pid, "task/"+strconv.Itoa(tid)+"/status")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	text, err := readAll(fd, make([]byte, 0, 8192))
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	s, err := parseStatus(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.owner = st.Uid
	return s, nil
}

// readAll reads to the end, which a short read of a file in /proc is not yet.
func readAll(fd int, text []byte) ([]byte, error) {
	for {
		if len(text) == cap(text) {
			text = append(text, 0)[:len(text)]
		}
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n == 0:
			return text, nil
		default:
			text = text[:len(text)+n]
		}
	}
}

func parseStatus(text string) (*taskStatus, error) {
	s := &taskStatus{}
	seen := 0
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "Uid":
			s.uids, err = numbers[uint32](value)
		case "Gid":
			s.gids, err = numbers[uint32](value)
		case "Groups":
			s.groups, err = numbers[uint32](value)
		case "NSpid":
			s.nsPIDs, err = numbers[int](value)
		case "CapInh":
			s.capInheritable, err = strconv.ParseUint(value, 16, 64)
		case "CapPrm":
			s.capPermitted, err = strconv.ParseUint(value, 16, 64)
		case "CapBnd":
			s.capBounding, err = strconv.ParseUint(value, 16, 64)
		case "CapAmb":
			s.capAmbient, err = strconv.ParseUint(value, 16, 64)
		case "NoNewPrivs":
			s.noNewPrivs = value != "0"
			continue
		case "Seccomp":
			s.seccomp, err = strconv.Atoi(value)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the line %q: %w", strings.TrimSpace(line), err)
		}
		seen++
	}
	if seen < 8 || len(s.uids) != 4 || len(s.gids) != 4 {
		return nil, errors.New("it lacks lines on credentials")
	}
	return s, nil
}

func numbers[N int | uint32](text string) (list []N, err error) {
	for field := range strings.FieldsSeq(text) {
		n, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return nil, err
		}
		list = append(list, N(n))
	}
	return list, nil
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// sameFile reports whether two paths, symbolic links followed, lead to one file.
func sameFile(a, b string) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Stat(a, &x); err != nil {
		return false, &os.PathError{Op: "stat", Path: a, Err: err}
	}
	if err := unix.Stat(b, &y); err != nil {
		return false, &os.PathError{Op: "stat", Path: b, Err: err}
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}
