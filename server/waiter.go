package server

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A waiter waits for connections on a socket that other processes wait on, too: the service and its workers. The kernel
// wakes one of them for each connection (EPOLLEXCLUSIVE, epoll_ctl(2)): the first in the order in which they came that
// does wait at that moment. One that is busy, stopped or dead costs nobody anything: the next is woken.
//
// It blocks its thread in the kernel and not in the runtime's poller, whose own instances of epoll are no such waiters:
// all would be woken for each connection.
type waiter struct {
	listen int
	epoll  int

	mu   sync.Mutex // of the socket, as long as it is asked for connections
	left bool
}

// newWaiter waits on a listening socket, which does not block, and ends a wait when what is asked for (EPOLLIN,
// EPOLLRDHUP …) happens to another descriptor. Both stay the caller's.
func newWaiter(listen, until int, what uint32) (*waiter, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	w := &waiter{listen: listen, epoll: epoll}
	err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, until, &unix.EpollEvent{Events: what, Fd: int32(until)})
	if err == nil {
		err = w.add()
	}
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return w, nil
}

func (w *waiter) add() error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, w.listen, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(w.listen)})
}

// last makes this waiter the one that is woken where no other waits. A connection that one was woken for, and has died
// instead of taking it, is seen with that.
func (w *waiter) last() error {
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, w.listen, nil); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	return os.NewSyscallError("epoll_ctl", w.add())
}

func (w *waiter) close() { unix.Close(w.epoll) }

// leave closes the socket, whoever asks it for connections meanwhile.
func (w *waiter) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = true
	unix.Close(w.listen)
}

// take takes a connection that is there already.
func (w *waiter) take() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left {
		return -1, errNoMore
	}
	conn, _, err := unix.Accept4(w.listen, unix.SOCK_CLOEXEC)
	return conn, err
}

// errNoMore says that no connection is to be waited for any more.
var errNoMore = errors.New("the wait for connections is over")

// accept waits for a connection.
func (w *waiter) accept() (int, error) {
	var events [2]unix.EpollEvent
	for {
		// First of all: others may have left some.
		conn, err := w.take()
		switch {
		case err == nil, errors.Is(err, errNoMore):
			return conn, err
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return -1, os.NewSyscallError("accept", err)
		}
		n, err := unix.EpollWait(w.epoll, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return -1, os.NewSyscallError("epoll_wait", err)
		}
		for i := range max(n, 0) {
			if int(events[i].Fd) != w.listen {
				return -1, errNoMore
			}
		}
	}
}
