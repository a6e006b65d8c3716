package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// Limits of a [Server] that names none.
const (
	DefaultMaxWorkers = 256
	DefaultMaxPerUser = 32
)

// workerLogLimit bounds, in bytes, what one worker may write into the service's log: a worker of a client that is not
// root does what that client can make it do.
const workerLogLimit = 64 << 10

// Server is a CRIU service: it accepts connections and starts one worker process for each.
type Server struct {
	// Worker is how a worker process is started.
	Worker Command
	// Grant gives workers of clients that are not root CAP_CHECKPOINT_RESTORE, without which a restore cannot have the
	// pids of the images. It is the one thing that such a client gets and does not have.
	Grant bool
	// MaxWorkers bounds how many connections are served at once, DefaultMaxWorkers if zero; more wait in the socket's
	// backlog.
	MaxWorkers int
	// MaxPerUser bounds how many of them may be one user's, root aside, DefaultMaxPerUser if zero; more are refused.
	MaxPerUser int
	// MaxIdle is how many workers wait for clients of root's, which then need not wait for a process to start: one at least is
	// started ahead, and those that have served such a client are kept. They count as connections, and are fewer than MaxWorkers.
	// With none each connection has a process that is new.
	MaxIdle int
	// Log takes what an administrator should know, one line; nil discards it.
	Log func(format string, args ...any)

	rules *rules // nil is all of them
}

// running is the state of a Server while it serves.
type running struct {
	*Server
	rules    rules
	self     *self
	slots    chan struct{} // one for each worker, and each connection that has none yet
	listener *Listener
	ending   <-chan struct{}

	mu       sync.Mutex
	perUser  map[uint32]int
	controls map[*launched]bool
	waiting  map[*launched]bool // for clients of root's
	starting bool               // another of them
	draining bool
	workers  sync.WaitGroup
}

// Serve accepts connections until ctx ends, and closes l. It returns when the last worker has done what it was doing: a
// dump or restore that runs is never broken off. An idle conversation is closed.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	r := &running{Server: s, listener: l, ending: ctx.Done(), perUser: map[uint32]int{}, controls: map[*launched]bool{}, waiting: map[*launched]bool{}}
	r.rules = allRules()
	if s.rules != nil {
		r.rules = *s.rules
	}
	own, err := lookAtSelf()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	r.self = own
	r.slots = make(chan struct{}, or(s.MaxWorkers, DefaultMaxWorkers))
	stop := context.AfterFunc(ctx, l.stop)
	defer stop()
	r.startAhead()
	err = r.accept(ctx, l)
	l.Close()
	r.drain()
	r.workers.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func or(n, fallback int) int {
	if n == 0 {
		return fallback
	}
	return n
}

func (r *running) log(format string, args ...any) {
	if r.Log != nil {
		r.Log(format, args...)
	}
}

func (r *running) accept(ctx context.Context, l *Listener) error {
	for pause := time.Millisecond; ; {
		conn, err := l.accept()
		switch {
		case err == nil:
			pause = time.Millisecond
			r.take(conn)
			continue
		case ctx.Err() != nil, errors.Is(err, os.ErrClosed):
			return nil
		case !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.ENOBUFS):
			return err
		}
		r.log("cannot accept a connection: %v", err)
		// There is nothing to wait for but that others give back what there is too little of.
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-ctx.Done():
			return nil
		}
	}
}

// take has a connection served when there is room for it. Until then whoever has accepted it accepts no other.
func (r *running) take(conn *os.File) {
	if r.isEnding() {
		conn.Close()
		return
	}
	select {
	case r.slots <- struct{}{}:
		r.workers.Add(1)
		go r.serve(conn)
	case <-r.ending:
		conn.Close()
	}
}

// serve starts the worker for a connection and sees it to its end.
func (r *running) serve(conn *os.File) {
	defer r.workers.Done()
	defer func() { <-r.slots }()
	defer conn.Close()
	c, err := identify(int(conn.Fd()), r.rules, r.self)
	if err != nil {
		r.refuse(conn, err)
		return
	}
	defer c.close()
	if err := r.admit(c); err != nil {
		r.refuse(conn, err)
		return
	}
	defer r.leave(c)
	w, err := r.worker(conn, c)
	if err != nil && r.isEnding() {
		return
	}
	if err != nil {
		r.refuse(conn, refusal(unix.EAGAIN, "%w", err))
		return
	}
	conn.Close()
	if w.says == nil {
		<-w.ended
		return
	}
	r.startAhead()
	r.see(w)
}

func (r *running) isEnding() bool {
	select {
	case <-r.ending:
		return true
	default:
		return false
	}
}

// worker returns a new worker that has the connection.
func (r *running) worker(conn *os.File, c *client) (*launched, error) {
	w, err := r.start(c)
	if err != nil {
		return nil, err
	}
	if err := tell(w.control, wordGive, int(conn.Fd())); err != nil {
		w.control.Close()
		return nil, fmt.Errorf("a worker process did not take the connection: %w", err)
	}
	return w, nil
}

// start starts a worker for a client, or for none yet.
func (r *running) start(c *client) (*launched, error) {
	w, err := r.launch(c)
	if err != nil {
		return nil, err
	}
	r.register(w)
	r.workers.Add(1)
	if w.says != nil {
		go listen(w.control, w.says)
	}
	go r.attend(w)
	return w, nil
}

// admit counts a client in, or refuses it.
func (r *running) admit(c *client) error {
	if own := uint32(os.Geteuid()); own != 0 && c.UID != own {
		return refusal(unix.EPERM, "this service runs as uid %d and cannot act for uid %d", own, c.UID)
	}
	if c.trust == untrusted && c.UID == 0 && r.rules.rootIsRoot {
		// Without the capabilities it would still own root's files here.
		return refusal(unix.EPERM, "the client has uid 0 but is not root here: %s", c.why)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	most := or(r.MaxPerUser, DefaultMaxPerUser)
	if c.trust == untrusted && r.perUser[c.UID] >= most {
		return refusal(unix.EAGAIN, "uid %d has %d conversations with this service, which is as many as one user may have", c.UID, most)
	}
	r.perUser[c.UID]++
	return nil
}

func (r *running) leave(c *client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.perUser[c.UID]--; r.perUser[c.UID] == 0 {
		delete(r.perUser, c.UID)
	}
}

// register notes a worker as one to be told when the service ends, which may have been meanwhile.
func (r *running) register(w *launched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
		w.control.Close()
	}
	r.controls[w] = true
}

// drain asks all workers to end once they are done with what they do.
func (r *running) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
	for w := range r.controls {
		w.control.Close()
	}
}

// refusePatience is how long a client that is refused may take to its first request, for the answer to reach it: one that
// finds the conversation closed cannot even send, and as a rule never looks whether there is an answer.
const refusePatience = 250 * time.Millisecond

// refuse tells a client that it is not served, in an answer to its first request.
func (r *running) refuse(conn *os.File, err error) {
	r.log("refused a connection: %v", err)
	fd, dupErr := unix.FcntlInt(conn.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if dupErr != nil {
		return
	}
	p := newPackets(fd)
	defer p.close()
	asked := rpc.ReqEmpty
	now, cancel := context.WithTimeout(context.Background(), refusePatience)
	defer cancel()
	if req, err := p.next(now); err == nil {
		asked = req.Type
	}
	p.send(response(asked, err), nil)
}

// copyLog passes on what a worker says, until it has ended: line by line, made printable, and not without end.
func (r *running) copyLog(w *launched) {
	defer w.log.Close()
	lines := bufio.NewReaderSize(io.LimitReader(w.log, workerLogLimit), 4096)
	for {
		line, err := lines.ReadString('\n')
		if text := printable(line); text != "" {
			r.log("worker %d: %s", w.process.Pid, text)
		}
		if err != nil {
			break
		}
	}
	io.Copy(io.Discard, w.log)
}

func printable(line string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, line))
}

// ReadyFD writes the one NUL byte that --status-fd promises, and closes the descriptor.
func ReadyFD(fd int) error {
	f := os.NewFile(uintptr(fd), "status fd "+strconv.Itoa(fd))
	if f == nil {
		return fmt.Errorf("%d is no descriptor", fd)
	}
	defer f.Close()
	_, err := f.Write([]byte{0})
	return err
}
