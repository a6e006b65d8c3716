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
	if o.rules == nil {
		all := allRules()
		o.rules = &all
	}
}

var errEnding = errors.New("the service is ending")

// Work is what a worker process does: it holds the conversations that its service has accepted and hands it, one after the other,
// on descriptor 3. It returns when the client has closed one and no other is to come, or the service ends. It is called by the
// program that [Server.Worker] names.
func Work(ctx context.Context, o Options) error {
	o.setDefaults()
	unix.CloseOnExec(workerControl)
	var ending context.CancelCauseFunc
	ctx, ending = context.WithCancelCause(ctx)
	defer ending(nil)
	if err := unix.SetNonblock(workerControl, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	control := os.NewFile(workerControl, "control") // non-blocking, so that Close ends the read
	done, next := make(chan struct{}), make(chan int, 1)
	defer func() { control.Close(); <-done }()
	go func() {
		defer close(done)
		receiveConnections(control, next) // until the service closes its end, or is gone
		ending(errEnding)
	}()
	all := runtime.GOMAXPROCS(0)
	o.big = func() { runtime.GOMAXPROCS(all) }
	for n := 1; ; n++ {
		// To wake another thread takes longer than to answer a small request.
		runtime.GOMAXPROCS(1)
		conn, ok := <-next
		if !ok {
			return nil
		}
		again, err := work(ctx, conn, o)
		if err != nil || !again || ctx.Err() != nil || n == maxConversations {
			return err
		}
		if err := sayIdle(control); err != nil {
			return nil // the service is gone
		}
	}
}

// work holds one conversation. It reports whether the worker is as good as new afterwards.
func work(ctx context.Context, conn int, o Options) (again bool, err error) {
	front, err := newPackets(conn)
	if err != nil {
		return false, err
	}
	defer front.close()
	c, err := recognize(conn, *o.rules)
	if err != nil {
		front.send(response(0, err), nil)
		return false, err
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
	front, err := newPackets(fd)
	if err != nil {
		return err
	}
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
