// Package ptrace holds tasks stopped.
//
// The kernel lets only one thread, the tracer, make requests about a tracee. A [Tracer] is such a thread: [Run] starts a
// goroutine that is locked to an OS thread of its own and calls a function there; whatever the function traces must be
// used inside it, on that goroutine. The thread ends with the function, and what it then still traces the kernel lets
// go, as it does when the process is killed. So a tracee never stays stopped because somebody forgot it; that it is in
// order when it runs on is the business of package remote.
//
// Nothing here waits without bound or for any child: wait4 is called with the id of a tracee and WNOHANG, with pauses
// that grow, until the tracer's deadline or the end of its context.
package ptrace

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
	"stasis.example/internal/proc"
)

// ErrGone is a tracee that has exited or was killed.
var ErrGone = errors.New("the task is gone")

// ErrTimeout is a tracee that did not stop in time, as one in uninterruptible sleep does not.
var ErrTimeout = errors.New("the task does not stop")

// A Tracer is the thread that traces. It is used on its own goroutine only, but for what an undertaker does.
type Tracer struct {
	kernel  *linux.Kernel
	proc    proc.FS
	ctx     context.Context
	options uint
	wake    int // eventfd, readable when the context has ended
	stops   int
	held    int // tracees that were not let go
	early   map[int]*Thread
	dead    undertaker
	apart   bool // its thread has a table of descriptors of its own
	fate    *linux.Fate
	xstate  []byte // room for that of a thread
	room    []byte
}

// Options is how a Tracer traces.
type Options struct {
	// Kernel is the door to the kernel; nil will do.
	Kernel *linux.Kernel
	// SuspendSeccomp suspends the seccomp filters of tracees while they are traced. It needs CAP_SYS_ADMIN.
	SuspendSeccomp bool
	// ExitKill kills tracees with the tracer: for processes that are being made.
	ExitKill bool
}

// Run calls f with a new Tracer, on a goroutine of its own, and returns what f returns. It waits for f even when the
// context ends: f is then told by the errors of what it waits for, and has what it has changed to put back.
func Run(ctx context.Context, options Options, f func(*Tracer) error) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	t := &Tracer{kernel: options.Kernel, proc: proc.New(linux.Proc{}), ctx: ctx, options: linux.OptSyscallGood, wake: wake}
	if t.kernel == nil {
		t.kernel = new(linux.Kernel)
	}
	if options.SuspendSeccomp {
		t.options |= linux.OptSuspendSeccomp
	}
	if options.ExitKill {
		t.options |= linux.OptExitKill
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	result := make(chan error, 1)
	var thread int
	go onOwnThread(func() {
		thread = unix.Gettid()
		err := errors.New("the function that traced ended its goroutine")
		defer func() { result <- err }()
		err = f(t)
	})
	err = <-result
	if t.held > 0 || t.apart {
		err = errors.Join(err, t.waitThread(thread))
	}
	if !stop() {
		<-woken
	}
	_ = unix.Close(wake)
	return err
}

// onOwnThread calls f on a thread that ends afterwards. The process's first thread never does: the runtime keeps it when
// a goroutine that is locked to it ends (runtime.mexit), and what it traces would stay stopped.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // and never unlocked
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // it cannot be the first thread, which this goroutine holds
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

// waitThread waits until the tracer's thread has ended, and with it the tracing of what it has not let go, and its descriptors.
func (t *Tracer) waitThread(tid int) error {
	deadline := time.Now().Add(patience)
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		if err := unix.Tgkill(unix.Getpid(), tid, 0); errors.Is(err, unix.ESRCH) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("thread %d, which traced: %w", tid, ErrTimeout)
		}
		t.kernel.Pause(int64(pause))
	}
}

// Kernel is the tracer's door to the kernel.
func (t *Tracer) Kernel() *linux.Kernel { return t.kernel }

// Proc is where the tracer looks at its tracees.
func (t *Tracer) Proc() proc.FS { return t.proc }

// Context is the context that bounds the tracer's waits.
func (t *Tracer) Context() context.Context { return t.ctx }

// WakeFD is a descriptor that is readable when the context has ended, for those who poll others beside it.
func (t *Tracer) WakeFD() int { return t.wake }

// Room returns memory for what goes to a tracee or comes from there: so many bytes, which are good until it is asked again.
func (t *Tracer) Room(n int) []byte {
	if cap(t.room) < n {
		t.room = make([]byte, n)
	}
	return t.room[:n]
}

// Stops counts the stops of tracees so far, the unit of cost.
func (t *Tracer) Stops() int { return t.stops }

// WithContext calls f with the tracer's waits bound by another context: rolling back must go on when the context has ended.
func (t *Tracer) WithContext(ctx context.Context, f func() error) error {
	old, wake := t.ctx, t.wake
	t.ctx, t.wake = ctx, -1
	defer func() { t.ctx, t.wake = old, wake }()
	return f()
}

// A Kind is the kind of a stop.
type Kind int

const (
	// EventStop is the stop that Interrupt asks for. The signal is SIGTRAP.
	EventStop Kind = iota + 1
	// GroupStop is the stop of a process that was stopped by a signal (job control), which the signal tells.
	GroupStop
	// SyscallStop is an entry to or an exit from a system call.
	SyscallStop
	// SignalStop is a signal about to be delivered, which is lost unless it is given to the next resumption.
	SignalStop
	// OtherStop is an event that an option asked for.
	OtherStop
)

// A Stop is how a tracee has stopped.
type Stop struct {
	Kind   Kind
	Signal unix.Signal
	Status uint32 // as wait4 gave it
}

func (s Stop) String() string {
	name := map[Kind]string{EventStop: "event stop", GroupStop: "group stop", SyscallStop: "syscall stop", SignalStop: "signal stop", OtherStop: "stop"}[s.Kind]
	return fmt.Sprintf("%s (%v, status %#x)", name, s.Signal, s.Status)
}

// ptraceEventStop is PTRACE_EVENT_STOP.
const ptraceEventStop = 128

func parseStop(status uint32) Stop {
	ws := unix.WaitStatus(status)
	s := Stop{Status: status, Signal: ws.StopSignal()}
	switch event := status >> 16; {
	case s.Signal == unix.SIGTRAP|0x80:
		s.Kind, s.Signal = SyscallStop, unix.SIGTRAP
	case event == ptraceEventStop && s.Signal == unix.SIGTRAP:
		s.Kind = EventStop
	case event == ptraceEventStop:
		s.Kind = GroupStop
	case event != 0:
		s.Kind = OtherStop
	default:
		s.Kind = SignalStop
	}
	return s
}

// patience is how long a tracee may take to stop.
const patience = 10 * time.Second

// longPatience is how long a table of system calls may take: some write or read some MiB of a disk that may be slow.
const longPatience = 2 * time.Minute
