package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
)

// Options are what a conversation is held with.
type Options struct {
	// Transport reaches the peer that does the work. A [*Proxy] also takes connections over.
	Transport criu.Transport
	// TellCaller says that the Transport is an engine in this process, which is told on whose behalf a request is made
	// ([criu.Call]'s Caller), judges by it, and can do what rests on who the client is: have it dump itself, restore a tree
	// as its child. A peer that is a process of its own is not told: it runs with the client's rights.
	TellCaller bool
	// Defaults are options of requests that do not set them, for an engine in this process: what configuration files say. A
	// client that may not set an option does not get it by default either.
	Defaults *rpc.Opts
	// ReadConfig reads the configuration file that a request names, for an engine in this process.
	ReadConfig func(path string) (*rpc.Opts, error)
	// FirstRequest is how long a client may take to its first request; DefaultFirstRequest if zero.
	FirstRequest time.Duration
	// HangUpGrace is how long the peer may go on with a request whose client has hung up, before it is killed;
	// DefaultHangUpGrace if zero.
	HangUpGrace time.Duration
	// Log takes what an administrator should know, one line; nil discards it.
	Log func(format string, args ...any)

	rules *rules // nil is all of them
	big   func() // called before a request that more than one processor is of use for
	lasts func() // called when a conversation will last longer than it takes to answer what is there already
}

// DefaultFirstRequest is how long a client may take, unless told otherwise, between its connect and its first request.
const DefaultFirstRequest = 10 * time.Second

// DefaultHangUpGrace is long: killing a peer in the middle of a dump may cost the dumped tree its life, and as a rule a
// peer comes to an end by itself. It keeps one that hangs from holding a worker for ever.
const DefaultHangUpGrace = 10 * time.Minute

func (o *Options) setDefaults() {
	if o.HangUpGrace == 0 {
		o.HangUpGrace = DefaultHangUpGrace
	}
	if o.FirstRequest == 0 {
		o.FirstRequest = DefaultFirstRequest
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.lasts == nil {
		o.lasts = func() {}
	}
	if o.rules == nil {
		all := allRules()
		o.rules = &all
	}
}

var errEnding = errors.New("the service is ending")

// Work is what a worker process does: it holds the conversations that its service hands it on descriptor 3, or that it accepts
// itself on descriptor 4, one after the other. It returns when the client has closed one and no other is to come, or the service
// ends. It is called by the program that [Server.Worker] names.
func Work(ctx context.Context, o Options) error {
	o.setDefaults()
	w, ctx, err := newWorker(ctx, *o.rules)
	if err != nil {
		return err
	}
	defer w.close()
	all := runtime.GOMAXPROCS(0)
	o.big = func() { runtime.GOMAXPROCS(all) }
	o.lasts = w.busy
	// To wake another thread takes longer than to answer a small request.
	runtime.GOMAXPROCS(1)
	return w.run(func(conn int, c *client) (bool, error) {
		defer runtime.GOMAXPROCS(1)
		again, err := work(ctx, conn, c, o)
		return again && ctx.Err() == nil, err
	})
}

// A worker is this process, as one of a service's.
type worker struct {
	control *os.File
	hears   chan message
	done    chan struct{} // closed when nothing is to be heard any more
	rules   rules
	waiter  *waiter // nil in one that only has the client that it was started for
	self    *self
	begun   bool // it has been told what it is for
	told    bool // the service knows that this worker has a client, or is to be told that it waits
}

// newWorker returns this process as a worker, and a context that ends when the service wants it to.
func newWorker(ctx context.Context, r rules) (*worker, context.Context, error) {
	unix.CloseOnExec(workerControl)
	if err := unix.SetNonblock(workerControl, true); err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	w := &worker{hears: make(chan message, 1), done: make(chan struct{}), rules: r}
	if (os.Getenv(trustVariable) == trusted.String() || !r.apart) && isListening(workerListen) {
		unix.CloseOnExec(workerListen)
		var err error
		if w.self, err = lookAtSelf(); err != nil {
			return nil, nil, err
		}
		if w.waiter, err = newWaiter(workerListen, workerControl, unix.EPOLLRDHUP); err != nil {
			return nil, nil, err
		}
	}
	w.control = os.NewFile(workerControl, "control") // non-blocking, so that Close ends the read
	ctx, ending := context.WithCancelCause(ctx)
	go func() {
		defer close(w.done)
		listen(w.control, w.hears) // until the service closes its end, or is gone
		if w.waiter != nil {
			w.waiter.leave() // whatever this worker still does: who connects is to find that there is no service
		}
		ending(errEnding)
	}()
	return w, ctx, nil
}

func isListening(fd int) bool {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && listens != 0
}

func (w *worker) close() {
	w.control.Close()
	<-w.done
}

// run has each client served. The function that serves one reports whether another may be.
func (w *worker) run(serve func(conn int, c *client) (again bool, err error)) error {
	for n := 1; ; n++ {
		conn, c, err := w.next()
		if err != nil {
			return err
		}
		if conn < 0 {
			return nil
		}
		again, err := serve(conn, c)
		if err != nil || !again || w.waiter == nil || n == maxConversations {
			return err
		}
	}
}

// next waits for the next client; the connection is -1 where there is none to come. Of one that the service hands over it does not
// say who it is.
func (w *worker) next() (conn int, c *client, err error) {
	if !w.begun {
		w.begun, w.told = true, true
		switch m, ok := <-w.hears; {
		case !ok:
			return -1, nil, nil
		case m.word == wordGive:
			return m.conn, nil, nil
		}
	}
	if w.told {
		if !w.ask(wordWaits, -1) {
			return -1, nil, nil // there are enough without it
		}
		w.told = false
	}
	for {
		conn, err := w.waiter.accept()
		if errors.Is(err, errNoMore) {
			return -1, nil, nil
		}
		if err != nil {
			return -1, nil, err
		}
		c, err := identify(conn, w.rules, w.self)
		if err == nil && (c.trust == trusted || !w.rules.apart) {
			return conn, c, nil
		}
		if err == nil {
			c.close()
		}
		// With nothing read of what it says: it is not for this worker, or the service tells it why it is not served.
		goOn := w.ask(wordGive, conn)
		unix.Close(conn)
		if !goOn {
			return -1, nil, nil
		}
	}
}

// ask tells the service something, and reports whether this worker is to wait for connections.
func (w *worker) ask(word byte, conn int) bool {
	if tell(w.control, word, conn) != nil {
		return false
	}
	_, ok := <-w.hears
	return ok
}

// busy tells the service that there is one less who waits for clients.
func (w *worker) busy() {
	if w.waiter == nil || w.told {
		return
	}
	w.told = true
	tell(w.control, wordBusy, -1) // where it is gone, this worker finds out elsewhere
}

// work holds one conversation, with a client of which the worker knows who it is or is still to find out. It reports whether the
// worker is as good as new afterwards.
func work(ctx context.Context, conn int, c *client, o Options) (again bool, err error) {
	front := newPackets(conn)
	defer front.close()
	if c == nil {
		if c, err = recognize(conn, *o.rules); err != nil {
			front.send(response(0, err), nil)
			return false, err
		}
	}
	defer c.close()
	if (c.trust == trusted || o.rules.become) && uint32(os.Geteuid()) != c.UID {
		return false, fmt.Errorf("this worker has the uid %d, but its client has %d", os.Geteuid(), c.UID)
	}
	made, err := converse(ctx, front, c, o)
	// A process that was restored is this one's child until this one ends.
	return o.TellCaller && c.trust == trusted && !made && err == nil, err
}

// recognize is identify in a worker, which its service has started for a client that it has identified.
func recognize(conn int, r rules) (*client, error) {
	if os.Getenv(trustVariable) == trusted.String() {
		c, err := peerOf(conn, r)
		if err != nil {
			return nil, err
		}
		c.trust = trusted
		return c, nil
	}
	own, err := lookAtSelf()
	if err != nil {
		return nil, err
	}
	c, err := identify(conn, r, own)
	if err != nil {
		return nil, err
	}
	c.trust, c.why = untrusted, fmt.Sprintf("its uid is %d", c.UID)
	return c, nil
}

// Swrk holds a conversation with the parent process on an inherited descriptor, as `criu swrk FD` does, until the parent
// closes it.
func Swrk(ctx context.Context, fd int, o Options) error {
	o.setDefaults()
	o.FirstRequest = 0
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_SEQPACKET {
		return fmt.Errorf("descriptor %d is not a SOCK_SEQPACKET socket", fd)
	}
	unix.CloseOnExec(fd)
	front := newPackets(fd)
	defer front.close()
	own, err := lookAtSelf()
	if err != nil {
		return err
	}
	c, err := identify(fd, *o.rules, own)
	if err != nil {
		return err
	}
	defer c.close()
	c.trust = direct
	_, err = converse(ctx, front, c, o)
	return err
}
