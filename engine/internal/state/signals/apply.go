//go:build amd64

package signals

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/engine/internal/stub"
)

const (
	sigtrap = 5
	sigchld = 17

	ignored = 1 // SIG_IGN
	setSize = 8 // of a signal set
)

// Apply sets the dispositions of a process. All signals but SIGTRAP are blocked meanwhile.
func Apply(t *apply.Task) error {
	h := handlers(t)
	if h == nil {
		return fmt.Errorf("%s: its signal handlers %d are not in the images", t.Where(), t.Task.Handlers)
	}
	// Children that were made and died have queued a SIGCHLD. The default disposition ignores it, which empties the queue.
	disposition(&t.Batch, sigchld, make([]byte, actionSize))
	if t.Handlers == nil {
		// They are another's, which has set the others.
		disposition(&t.Batch, sigchld, appendAction(nil, &h.Actions[sigchld-1]))
	} else {
		last := &t.Tree.Actions
		if last.Of != h.Actions {
			last.Of, last.As = h.Actions, nil
			for i := range h.Actions {
				last.As = appendAction(last.As, &h.Actions[i])
			}
		}
		for i := range h.Actions {
			// Also those that are as in a new program: what we ignore, or a parent handles, was inherited.
			if sig := i + 1; sig != sigkill && sig != sigstop && !(sig == sigtrap && h.Actions[i].Handler == ignored) {
				disposition(&t.Batch, sig, last.As[i*actionSize:(i+1)*actionSize])
			}
		}
	}
	return nil
}

// Queue puts back what waits for a process. It comes after the dispositions: one that ignores a signal empties the queue.
func Queue(t *apply.Task) error {
	for i := range t.Pending {
		if s := &t.Pending[i]; queueable(t, s) {
			t.Batch.Try(queued(s), limited, unix.SYS_RT_SIGQUEUEINFO, apply.Num(t.PID.Inner()), apply.Num(s.Signal()), apply.Bytes(s[:]))
		}
	}
	return nil
}

// QueueThread puts back what waits for a thread alone.
func QueueThread(th *apply.Thread) error {
	for i := range th.Pending {
		if s := &th.Pending[i]; queueable(th.Task, s) {
			th.Batch.Try(queued(s), limited, unix.SYS_RT_TGSIGQUEUEINFO,
				apply.Num(th.Task.PID.Inner()), apply.Num(th.TID.Inner()), apply.Num(s.Signal()), apply.Bytes(s[:]))
		}
	}
	return nil
}

// Last returns the calls that the first thread has to make when no table of calls is run any more, in this process and in those
// that share its handlers: each is made by itself, see [stub.Process.Finish]. The int3 at the end of a table raises SIGTRAP by
// force, which would undo that it is ignored, and one that waits would be taken for that end. The arguments are written at once.
func Last(t *apply.Task) ([]stub.Call, error) {
	var calls []stub.Call
	var memory []byte
	room := func(b []byte) uint64 {
		at := t.Remote.Arguments() + uint64(len(memory))
		memory = append(memory, b...)
		return at
	}
	// First, since it empties the queue.
	if h := t.Handlers; h != nil && h.Actions[sigtrap-1].Handler == ignored {
		calls = append(calls, stub.NewCall(unix.SYS_RT_SIGACTION, sigtrap, room(appendAction(nil, &h.Actions[sigtrap-1])), 0, setSize))
	}
	pid := uint64(t.PID.Inner())
	blocked := false
	send := func(s *snapshot.Siginfo, nr uint32, to ...uint64) {
		if !blocked {
			blocked = true
			all := binary.LittleEndian.AppendUint64(nil, ^uint64(0))
			calls = append(calls, stub.NewCall(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, room(all), 0, setSize))
		}
		args := append(to, uint64(s.Signal()), room(s[:]))
		calls = append(calls, stub.NewCall(nr, args...))
	}
	for i := range t.Pending {
		if s := &t.Pending[i]; s.Signal() == sigtrap {
			send(s, unix.SYS_RT_SIGQUEUEINFO, pid)
		}
	}
	for i, th := range t.Threads {
		for j := range th.Pending {
			s := th.Pending[j]
			if s.Signal() != sigtrap {
				continue
			}
			if code := s.Code(); i > 0 && (code >= 0 || code == siTkill) {
				// Only the thread itself might say that the kernel, or kill(2), has sent it.
				t.Tree.Note("%s: what is known of the SIGTRAP that waits for it cannot be put back, only the signal", th.Where())
				binary.LittleEndian.PutUint32(s[8:], siQueue)
			}
			send(&s, unix.SYS_RT_TGSIGQUEUEINFO, pid, uint64(th.TID.Inner()))
		}
	}
	if len(memory) > stub.ArgumentRoom {
		return nil, fmt.Errorf("%s: %d signals SIGTRAP wait for it, more than can be put back", t.Where(), len(calls))
	}
	if len(memory) > 0 {
		if err := t.Remote.Write(t.Remote.Arguments(), memory); err != nil {
			return nil, err
		}
	}
	return calls, nil
}

// Values of si_code.
const (
	siQueue = 0xffffffff // SI_QUEUE, -1: sent by sigqueue(3)
	siTkill = -6         // SI_TKILL: sent by tgkill(2)
)

// handlers returns the handlers of a process, also where they were applied to another one.
func handlers(t *apply.Task) *snapshot.Handlers {
	for _, h := range t.Tree.Snapshot.Handlers {
		if h.ID == t.Task.Handlers {
			return h
		}
	}
	return nil
}

const actionSize = 32

// appendAction appends a disposition as the kernel has it.
func appendAction(b []byte, a *snapshot.Action) []byte {
	for _, w := range [...]uint64{a.Handler, a.Flags, a.Restorer, uint64(a.Mask)} {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func disposition(b *apply.Batch, sig int, action []byte) {
	b.DoFor("rt_sigaction of signal", sig, unix.SYS_RT_SIGACTION, apply.Num(sig), apply.Bytes(action), apply.Num(0), apply.Num(setSize))
}

func queued(s *snapshot.Siginfo) string { return fmt.Sprintf("queue signal %d", s.Signal()) }

// queueable reports whether a signal is put back in a table of calls.
func queueable(t *apply.Task, s *snapshot.Siginfo) bool {
	switch s.Signal() {
	case sigtrap:
		return false // see Last
	case sigkill, sigstop:
		// Of what is stopped they say nothing new: SIGCONT would take the one away, and the other kills in any case.
		t.Tree.Note("%s: signal %d, which waits for it, is not put back", t.Where(), s.Signal())
		return false
	}
	return true
}

// limited says what it means that a signal is not queued.
func limited(_ uint64, err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("more signals are queued than this user may have (RLIMIT_SIGPENDING, ulimit -i); raise it for the restore: %w", err)
	}
	return err
}
