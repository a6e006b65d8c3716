package server

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A worker takes some milliseconds to start, which is more than most requests take. One is therefore started ahead for the next
// client of root's; and one with the built-in engine that has served such a client, and has made no processes, says on its control
// socket that it is idle, and is given another: one after the other, never two at once. A worker for anybody else is somebody
// else from its first instruction on, so it is started when the client is there, and ends with it.

// maxConversations is how many clients a worker serves, one after the other.
const maxConversations = 256

// idleByte is what a worker says when it is idle, and a service when it sends a connection.
const idleByte = 'i'

// sayIdle tells the service that this worker is free.
func sayIdle(control *os.File) error {
	_, err := control.Write([]byte{idleByte})
	return err
}

// handOver gives a worker a connection.
func (w *launched) handOver(conn *os.File) error {
	raw, err := w.control.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), []byte{idleByte}, unix.UnixRights(int(conn.Fd())), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}

// receiveConnections passes on the connections that the service hands over, until it closes its end of the control socket.
func receiveConnections(control *os.File, to chan<- int) {
	defer close(to)
	raw, err := control.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		var n, oobn int
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, _, recvErr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
			return !errors.Is(recvErr, unix.EAGAIN)
		})
		if errors.Is(recvErr, unix.EINTR) {
			continue
		}
		if err != nil || recvErr != nil || n == 0 {
			return
		}
		if fd, err := connectionOf(oob[:oobn]); err == nil {
			to <- fd
		}
	}
}

func connectionOf(oob []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(err, errors.New("no connection came along"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(err, errors.New("no connection came along"))
	}
	return fds[0], nil
}

// listenIdle waits for the worker to say that it is idle, again and again, until it has closed its end.
func (w *launched) listenIdle() {
	buf := make([]byte, 1)
	for {
		n, err := w.control.Read(buf)
		switch {
		case n == 1:
			w.idle <- struct{}{}
		case err != nil && !errors.Is(err, syscall.EINTR) || n == 0:
			return
		}
	}
}

// takeIdle returns a worker that waits, nil where there is none.
func (r *running) takeIdle() *launched {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return nil
	}
	last := len(r.waiting) - 1
	w := r.waiting[last]
	r.waiting = r.waiting[:last]
	return w
}

// startAhead starts a worker for the next client of root's, where none waits for it and there are not so many that one of them
// will soon. Whoever calls it is counted in workers.
func (r *running) startAhead() {
	r.mu.Lock()
	defer r.mu.Unlock()
	roots := 0
	for w := range r.controls {
		if w.idle != nil {
			roots++
		}
	}
	if len(r.waiting) > 0 || roots >= r.MaxIdle || r.starting || r.draining {
		return
	}
	r.starting = true
	r.workers.Go(func() {
		w, err := r.start(nil)
		if err != nil {
			r.log("no worker ahead of the next client: %v", err) // it will be told why itself, if it is so still
		} else if !r.keep(w) {
			w.control.Close()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.starting = false
	})
}

// await waits until a worker has done with its client. One that is idle is kept, unless there are enough.
func (r *running) await(w *launched) {
	select {
	case <-w.idle:
		if !r.keep(w) {
			w.control.Close()
			<-w.ended
		}
	case <-w.ended:
	}
}

func (r *running) keep(w *launched) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining || len(r.waiting) >= r.MaxIdle || !r.controls[w] {
		return false
	}
	r.waiting = append(r.waiting, w)
	return true
}

// attend sees a worker to its end.
func (r *running) attend(w *launched) {
	defer r.workers.Done()
	r.copyLog(w)
	state, err := w.process.Wait()
	r.mu.Lock()
	delete(r.controls, w)
	for i, other := range r.waiting {
		if other == w {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			break
		}
	}
	r.mu.Unlock()
	close(w.ended)
	w.control.Close()
	switch {
	case errors.Is(err, unix.ECHILD): // the host process reaps all children by itself
	case err != nil:
		r.log("worker %d: %v", w.process.Pid, err)
	case !state.Success():
		r.log("worker %d ended with %v", w.process.Pid, state)
	}
}

// controlPair makes the socket between a service and a worker: the service's end, and the worker's.
func controlPair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control of a worker"), nil
}
