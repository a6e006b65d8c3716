package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSocket is where a service listens unless told otherwise.
const DefaultSocket = "criu_service.socket"

// backlog is how many connections may wait to be accepted.
const backlog = 128

// Address says where to listen.
type Address struct {
	Path string // DefaultSocket if empty
	// Mode is the permissions of the socket, who may connect; 0600 if zero. The socket never has wider ones.
	Mode fs.FileMode
	// Group is the group of the socket, the process's own if negative. Note that 0 is root's.
	Group int
}

// Listener is a socket that connections come in on.
type Listener struct {
	file *os.File
	path string // to be removed; "" for a socket that somebody else has made
	dev  uint64
	ino  uint64

	mu     sync.Mutex
	waiter *waiter // nil after Close
	wake   int     // an eventfd: nothing is to be waited for any more

	using     sync.RWMutex // held while the socket is passed on
	accepting sync.Mutex   // held by accept
	unname    sync.Once
	once      sync.Once
	err       error
}

// Listen makes the socket. One that is there already is replaced if nobody listens on it any more, and refused if
// somebody does, or if it is anything but a socket.
func Listen(a Address) (*Listener, error) {
	if a.Path == "" {
		a.Path = DefaultSocket
	}
	if a.Mode == 0 {
		a.Mode = 0o600
	}
	path, err := filepath.Abs(a.Path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	l := &Listener{path: path}
	if err := l.bind(fd, a); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot listen on %s: %w", a.Path, err)
	}
	return l, l.adopt(fd)
}

// bind gives the socket its name. It is made with the narrowest permissions and gets those that were asked for when its
// group is right: at no moment may more people connect than should.
func (l *Listener) bind(fd int, a Address) error {
	lock, err := l.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := removeStale(lock, l.path); err != nil {
		return err
	}
	// The kernel makes the file with the mode of the socket itself.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socketName(lock, l.path)}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := l.publish(fd, lock, a); err != nil {
		os.Remove(l.path)
		return err
	}
	return nil
}

// socketName is the path of a socket, or, where it does not fit into an address, a shorter one by way of the open
// directory.
func socketName(dir *os.File, path string) string {
	if len(path) < len(unix.RawSockaddrUnix{}.Path) {
		return path
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
}

func (l *Listener) publish(fd int, dir *os.File, a Address) error {
	name := filepath.Base(l.path)
	if a.Group >= 0 {
		if err := unix.Fchownat(int(dir.Fd()), name, -1, a.Group, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if err := unix.Fchmodat(int(dir.Fd()), name, uint32(a.Mode.Perm()), 0); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("stat", err)
	}
	l.dev, l.ino = st.Dev, st.Ino
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// lock keeps two services from replacing each other's sockets in one directory. It is the directory's own lock, so
// nothing is left behind.
func (l *Listener) lock() (*os.File, error) {
	dir, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		dir.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return dir, nil
}

// removeStale removes the socket of a service that is dead.
func removeStale(dir *os.File, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("it is there already and is no socket: %w", unix.EEXIST)
	}
	for began := time.Now(); ; {
		switch lives, err := listens(socketName(dir, path)); {
		case errors.Is(err, errDying) && time.Since(began) < dyingPatience:
		case err != nil:
			return err
		case lives:
			return fmt.Errorf("a service listens there already: %w", unix.EADDRINUSE)
		default:
			if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil
		}
	}
}

const (
	// dyingPatience is how long the workers of a service that was killed may take to find out: until then they have its socket.
	dyingPatience = 2 * time.Second
	// probePatience is how long it takes to be sure that a service lives: none closes a conversation as soon as that.
	probePatience = 100 * time.Millisecond
)

// errDying is what listens says of a service that is about to be gone.
var errDying = fmt.Errorf("the service that listens there is ending: %w", unix.EADDRINUSE)

// listens reports whether somebody takes connections on a socket.
func listens(name string) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPROTOTYPE):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("cannot tell whether a service listens there: %w", os.NewSyscallError("connect", err))
	}
	patience := probePatience
	if by, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && errors.Is(unix.Kill(int(by.Pid), 0), unix.ESRCH) {
		patience = dyingPatience // who has called listen(2) is no more
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, int(patience.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil && n > 0:
			return false, errDying
		default:
			return true, nil
		}
	}
}

// adopt makes fd the listener's socket. The runtime's poller is kept from it: it would be woken for each connection that a
// worker takes.
func (l *Listener) adopt(fd int) (err error) {
	if err := unix.SetNonblock(fd, false); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	l.file = os.NewFile(uintptr(fd), "service socket")
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if l.waiter, err = newWaiter(fd, l.wake, unix.EPOLLIN); err != nil {
		unix.Close(l.wake)
	}
	return err
}

// Inherited returns the socket that a service manager passes to this process (sd_listen_fds(3)), nil if there is none.
// The variables that tell of it are taken out of the environment.
func Inherited() (*Listener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	const first = 3
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is no number of sockets", count)
	}
	for fd := first; fd < first+n; fd++ {
		unix.CloseOnExec(fd)
	}
	if n > 1 {
		return nil, fmt.Errorf("the service manager passed %d sockets; a service has one", n)
	}
	return FromFD(first)
}

// FromFD returns a Listener on a socket that is bound and listens already. It is not removed when it is closed.
func FromFD(fd int) (*Listener, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, os.NewSyscallError("getsockopt", err))
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if typ != unix.SOCK_SEQPACKET || domain != unix.AF_UNIX || listens == 0 {
		return nil, fmt.Errorf("descriptor %d is not a unix socket of type SOCK_SEQPACKET that listens (ListenSequentialPacket= in systemd, with Accept=no)", fd)
	}
	unix.CloseOnExec(fd)
	l := &Listener{}
	return l, l.adopt(fd)
}

// File returns the socket itself, for a process that is to inherit it; that process becomes the one to remove it, once
// this one has called Abandon.
func (l *Listener) File() *os.File { return l.file }

// Abandon closes the socket and leaves its name.
func (l *Listener) Abandon() error {
	l.path = ""
	return l.Close()
}

// Own makes the Listener, from FromFD, the one to remove the socket's name.
func (l *Listener) Own(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	l.path, l.dev, l.ino = path, st.Dev, st.Ino
	// Once more: from now on the kernel says that the socket is this process's.
	return os.NewSyscallError("listen", unix.Listen(int(l.file.Fd()), backlog))
}

// accept waits for a connection that no worker waits for.
func (l *Listener) accept() (*os.File, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	l.mu.Lock()
	w := l.waiter
	l.mu.Unlock()
	if w == nil {
		return nil, os.ErrClosed
	}
	conn, err := w.accept()
	if errors.Is(err, errNoMore) {
		return nil, os.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(conn), "connection"), nil
}

// yield lets others that wait on the socket have the connections: this process is woken when none of them waits.
func (l *Listener) yield() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiter == nil {
		return nil
	}
	return l.waiter.last()
}

// share lets a process that is started inherit the socket, and keeps it open until done is called.
func (l *Listener) share() (socket *os.File, done func(), err error) {
	l.using.RLock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiter == nil {
		l.using.RUnlock()
		return nil, nil, os.ErrClosed
	}
	return l.file, l.using.RUnlock, nil
}

// stop removes the name, so that nobody connects any more, and ends accept.
func (l *Listener) stop() {
	l.unname.Do(func() {
		if l.path != "" {
			var st unix.Stat_t
			if unix.Lstat(l.path, &st) == nil && st.Dev == l.dev && st.Ino == l.ino {
				l.err = os.Remove(l.path)
			}
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiter != nil {
		unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1))
	}
}

// Close closes the socket and removes its name, if it still is this socket's. Close may be called more than once.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.stop()
		l.accepting.Lock()
		defer l.accepting.Unlock()
		l.using.Lock()
		defer l.using.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.waiter != nil {
			l.waiter.close()
			unix.Close(l.wake)
			l.waiter = nil
		}
		l.err = errors.Join(l.err, l.file.Close())
	})
	return l.err
}

// String is the socket's path.
func (l *Listener) String() string {
	if l.path == "" {
		return "an inherited socket"
	}
	return strings.TrimSpace(l.path)
}
