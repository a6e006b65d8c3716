package server

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A worker takes some milliseconds to start, which is more than most requests take. One is therefore started ahead for the next
// client of root's, and waits for it on the service's socket by itself: to wake a service first, which wakes a worker, would take
// as long as to answer. A worker with the built-in engine that has made no processes takes another such client afterwards: one
// after the other, never two at once. Who is not root is handed to the service with nothing read. A worker for anybody else is
// somebody else from its first instruction on, and has no socket: it is started when the client is there, and ends with it.
//
// Between the service and a worker there is a control socket; its end asks a worker to end after what it is doing. On it
//
//	the service sends    a connection, which the worker is to serve; or that it is to wait for one
//	a worker sends       that it would wait; that it has a client for some time; a connection that is not for it
//
// A client that is served at once is not told of: nobody has to do anything about it.

// What is said on the control socket, each as a packet of one byte.
const (
	wordWaits = 'w' // of a worker: it would wait for connections
	wordBusy  = 'b' // of a worker: it has a client, and may have it for some time
	wordGive  = 'g' // of either, with a connection: it is the other's
	wordGo    = 'a' // of the service: wait for a connection
)

// maxConversations is how many clients a worker serves, one after the other.
const maxConversations = 256

// A message is what comes on a control socket.
type message struct {
	word byte
	conn int // with wordGive
}

// tell sends a word, and the connection that goes with it, or -1.
func tell(control *os.File, word byte, conn int) error {
	raw, err := control.SyscallConn()
	if err != nil {
		return err
	}
	var rights []byte
	if conn >= 0 {
		rights = unix.UnixRights(conn)
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		for {
			sendErr = unix.Sendmsg(int(fd), []byte{word}, rights, nil, unix.MSG_NOSIGNAL)
			if !errors.Is(sendErr, unix.EINTR) {
				return !errors.Is(sendErr, unix.EAGAIN)
			}
		}
	})
	return errors.Join(err, sendErr)
}

// listen passes on what is said on a control socket, until its other end is closed.
func listen(control *os.File, to chan<- message) {
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
		m := message{buf[0], -1}
		if m.word == wordGive {
			if m.conn, err = connectionOf(oob[:oobn]); err != nil {
				return
			}
		}
		to <- m
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

// startAhead starts a worker for the next client of root's, where none waits for it and there are not so many that one of them
// will soon. Whoever calls it is counted in workers.
func (r *running) startAhead() {
	r.mu.Lock()
	defer r.mu.Unlock()
	roots := 0
	for w := range r.controls {
		if w.says != nil {
			roots++
		}
	}
	if len(r.waiting) > 0 || roots >= r.maxWaiting() || r.starting || r.draining {
		return
	}
	select {
	case r.slots <- struct{}{}:
	default:
		return // there are as many as may be
	}
	r.starting = true
	r.workers.Go(func() {
		defer func() { <-r.slots }()
		w, err := r.start(nil)
		if err != nil {
			if !r.isEnding() {
				r.log("no worker ahead of the next client: %v", err) // it will be told why itself, if it is so still
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.starting = false
			return
		}
		tell(w.control, wordGo, -1) // one that does not hear it has ended
		r.see(w)
	})
}

// maxWaiting is how many workers may wait for clients. Each is counted as if it had one, so one at least is left for others.
func (r *running) maxWaiting() int { return min(r.MaxIdle, cap(r.slots)-1) }

// see sees a worker of root's to its end.
func (r *running) see(w *launched) {
	for m := range w.says {
		switch m.word {
		case wordWaits:
			if !r.keep(w) || tell(w.control, wordGo, -1) != nil {
				w.control.Close()
			}
		case wordBusy:
			r.forget(w)
			r.startAhead()
		case wordGive:
			conn := os.NewFile(uintptr(m.conn), "connection")
			select {
			case r.slots <- struct{}{}:
				r.workers.Add(1)
				go r.serve(conn)
				if tell(w.control, wordGo, -1) == nil {
					continue
				}
			default: // there is no room for both
				r.workers.Go(func() { r.take(conn) })
			}
			w.control.Close()
		}
	}
	r.forget(w)
	<-w.ended
	if err := r.listener.yield(); err != nil { // it may have left a connection
		r.log("%v", err)
	}
	if !w.failed { // else others would, too, one after the other; the next client has one started
		r.startAhead()
	}
}

// keep counts a worker among those that wait, unless there are enough.
func (r *running) keep(w *launched) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isStarted(w)
	if r.draining || !r.waiting[w] && len(r.waiting) >= r.maxWaiting() || !r.controls[w] {
		return false
	}
	r.waiting[w] = true
	if err := r.listener.yield(); err != nil {
		r.log("%v", err)
		return false
	}
	return true
}

// forget counts a worker no more among those that wait.
func (r *running) forget(w *launched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isStarted(w)
	delete(r.waiting, w)
}

// isStarted notes that a worker is not being started any more.
func (r *running) isStarted(w *launched) {
	if w.ahead {
		w.ahead, r.starting = false, false
	}
}

// attend waits for a worker's end.
func (r *running) attend(w *launched) {
	defer r.workers.Done()
	r.copyLog(w)
	state, err := w.process.Wait()
	r.mu.Lock()
	delete(r.controls, w)
	r.mu.Unlock()
	w.failed = err == nil && !state.Success()
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
