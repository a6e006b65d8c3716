package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

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
	raw  syscall.RawConn
	path string // to be removed; "" for a socket that somebody else has made
	dev  uint64
	ino  uint64

	once sync.Once
	err  error
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
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: socketName(dir, path)})
	if !errors.Is(err, unix.ECONNREFUSED) {
		if err == nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EPROTOTYPE) {
			return fmt.Errorf("a service listens there already: %w", unix.EADDRINUSE)
		}
		return fmt.Errorf("cannot tell whether a service listens there: %w", os.NewSyscallError("connect", err))
	}
	return os.Remove(path)
}

// adopt makes fd the listener's socket.
func (l *Listener) adopt(fd int) (err error) {
	l.file = os.NewFile(uintptr(fd), "service socket")
	l.raw, err = l.file.SyscallConn()
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
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
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
	l.path, l.dev, l.ino = path, st.Dev, st.Ino
	return err
}

// accept waits for a connection.
func (l *Listener) accept() (*os.File, error) {
	var conn int
	var acceptErr error
	err := l.raw.Read(func(fd uintptr) bool {
		for {
			conn, _, acceptErr = unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
			if !errors.Is(acceptErr, unix.EINTR) && !errors.Is(acceptErr, unix.ECONNABORTED) {
				return !errors.Is(acceptErr, unix.EAGAIN)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if acceptErr != nil {
		return nil, os.NewSyscallError("accept", acceptErr)
	}
	return os.NewFile(uintptr(conn), "connection"), nil
}

// stop removes the name, so that nobody connects any more, and wakes accept.
func (l *Listener) stop() { l.Close() }

// Close closes the socket and removes its name, if it still is this socket's. Close may be called more than once.
func (l *Listener) Close() error {
	l.once.Do(func() {
		if l.path != "" {
			var st unix.Stat_t
			if unix.Lstat(l.path, &st) == nil && st.Dev == l.dev && st.Ino == l.ino {
				l.err = os.Remove(l.path)
			}
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
