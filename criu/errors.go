package criu

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"stasis.example/criu/rpc"
)

// The sentinels that an [*Error] may match. The first five are the rows of libcriu's table of return values.
var (
	ErrFailed      = errors.New("the peer reported failure")
	ErrConnect     = errors.New("cannot reach the peer")
	ErrTransport   = errors.New("cannot exchange messages with the peer")
	ErrUnsupported = errors.New("the peer does not support the request")
	ErrProtocol    = errors.New("unexpected response from the peer")

	// ErrOptions: the options are wrong; nothing was sent.
	ErrOptions = errors.New("bad options")
	// ErrRefused: a callback of the caller's refused to go on; its error is in the chain. It is an ErrFailed too.
	ErrRefused = fmt.Errorf("%w: refused by the caller's callback", ErrFailed)
	// ErrNoProcess: the process to be dumped does not exist (ESRCH). CRIU says so of any process that it cannot stop,
	// too; behind a [Swrk], a process that is there does not match this, and the error says what is in the way.
	ErrNoProcess = errors.New("no such process")
	// ErrPIDInUse: a pid that the restore needs is taken (EEXIST).
	ErrPIDInUse = errors.New("pid in use")
	// ErrBadRequest: the peer rejected the options (EBADRQC).
	ErrBadRequest = errors.New("the peer rejected the options")
	// ErrNoSpace: the file system of the images is full (ENOSPC).
	ErrNoSpace = errors.New("no space left for the images")
	// ErrClosed: the session or handle was closed before.
	ErrClosed = errors.New("conversation closed")
)

// outcome is one row of the table that all other forms of an error are made from.
type outcome struct {
	sentinel error
	code     syscall.Errno // what libcriu's functions return, negated
	exit     int           // exit status of the command line
}

// outcomes maps the kinds of failure to libcriu's return values (as its documentation lists them) and to exit codes.
// The exit codes are 1 throughout, as criu's are.
var outcomes = []outcome{
	{ErrFailed, syscall.EBADE, 1},
	{ErrConnect, syscall.ECONNREFUSED, 1},
	{ErrTransport, syscall.ECOMM, 1},
	{ErrUnsupported, syscall.EINVAL, 1},
	{ErrProtocol, syscall.EBADMSG, 1},
	{ErrOptions, syscall.EINVAL, 1},
	{ErrClosed, syscall.EINVAL, 1},
}

// causes maps errno values, CRIU's cr_errno above all, to what they mean for these operations.
var causes = []struct {
	errno    syscall.Errno
	sentinel error
}{
	{syscall.ESRCH, ErrNoProcess},
	{syscall.EEXIST, ErrPIDInUse},
	{syscall.EBADRQC, ErrBadRequest},
	{syscall.ENOSPC, ErrNoSpace},
}

// Error is any failure of an operation.
type Error struct {
	// Op is the operation: "dump", "restore", "version", …
	Op string
	// Stage is how far it came: the name of the last notification, or "options", "connect", "send", "receive".
	Stage string
	// PID is the process that was to be dumped, 0 where there is none.
	PID int
	// Peer names the transport's peer.
	Peer string
	// Resource is what failed, where it has a name: a directory, a socket, a binary.
	Resource string
	// Kind is the sentinel that says how it failed: ErrFailed, ErrConnect, …
	Kind error
	// Errno is the peer's cr_errno, or the errno of the system call that failed, 0 for none.
	Errno syscall.Errno
	// Message is the peer's cr_errmsg, the first error line of its log. CRIU often opens with a harmless one.
	Message string
	// Log holds the last error lines of the operation's own log, oldest first, without time stamps and source lines.
	Log []string
	// LogFile is the path of that log, "" where there is none.
	LogFile string
	// Err is the cause, if one is known: a system call's error, a callback's, the context's.
	Err error

	present bool // the process is there, although Errno says that it is not
}

// Error says what was tried, why it failed, and where to read more. It is one line but for bad options, of which each
// has its own.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.PID != 0 {
		fmt.Fprintf(&b, " pid %d", e.PID)
	}
	b.WriteString(": ")
	switch reason := e.reason(); {
	case reason != "":
		b.WriteString(reason)
	case e.Kind != nil:
		b.WriteString(e.Kind.Error())
	default:
		b.WriteString("failed")
	}
	if e.Errno != 0 && !e.present && !strings.Contains(b.String(), e.Errno.Error()) {
		fmt.Fprintf(&b, " (%s)", e.Errno.Error())
	}
	if e.showStage() {
		fmt.Fprintf(&b, "; after the stage %s", e.Stage)
	}
	if e.LogFile != "" {
		fmt.Fprintf(&b, "; log in %s", e.LogFile)
	}
	return b.String()
}

func (e *Error) showStage() bool {
	switch e.Stage {
	case "", "options", "connect", "send", "receive":
		return false
	}
	return true
}

// reason leads with what tells most: the cause, the log's last lines, the peer's message, in this order.
func (e *Error) reason() string {
	var parts []string
	if e.Err != nil {
		text := e.Err.Error()
		if e.Resource != "" && !strings.Contains(text, e.Resource) {
			text = e.Resource + ": " + text
		}
		parts = append(parts, text)
	}
	parts = append(parts, e.Log...)
	if e.Message != "" {
		first := strings.TrimSpace(stripLogLine(e.Message))
		seen := false
		for _, l := range e.Log {
			seen = seen || l == first
		}
		switch {
		case seen:
		case len(e.Log) > 0:
			parts = append(parts, "its first message was: "+first)
		default:
			parts = append(parts, first)
		}
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the sentinel of this failure, the errno that goes with the sentinel in libcriu's table,
// or the errno that the peer reported.
func (e *Error) Is(target error) bool {
	if errors.Is(e.Kind, target) {
		return true
	}
	for _, c := range causes {
		if c.sentinel == target && e.Errno == c.errno {
			return target != ErrNoProcess || !e.present
		}
	}
	errno, ok := target.(syscall.Errno)
	if !ok {
		return e.Errno != 0 && e.Errno.Is(target) // os.ErrNotExist and its like
	}
	return errno != 0 && (errno == e.Errno || errno == e.code())
}

func (e *Error) code() syscall.Errno { return outcomeOf(e).code }

func outcomeOf(e *Error) outcome {
	for _, o := range outcomes {
		if errors.Is(e.Kind, o.sentinel) {
			return o
		}
	}
	return outcome{ErrFailed, syscall.EBADE, 1}
}

// ReturnCode is the value that libcriu's functions return for err: 0 for nil, else one of -EBADE, -ECONNREFUSED,
// -ECOMM, -EINVAL and -EBADMSG.
func ReturnCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return -int(e.code())
	}
	return -int(syscall.EBADE)
}

// ExitCode is the exit status of a command that ends with err.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return outcomeOf(e).exit
	}
	return 1
}

// Response is how a server tells err to its client, in an answer to a request of type t.
func Response(t rpc.ReqType, err error) *rpc.Resp {
	resp := &rpc.Resp{Type: t, Success: err == nil}
	if err == nil {
		return resp
	}
	text := err.Error()
	resp.CrErrmsg = &text
	if e, ok := errors.AsType[*Error](err); ok {
		if e.Errno != 0 {
			resp.CrErrno = new(int32(e.Errno))
		}
		if errors.Is(e, ErrUnsupported) {
			resp.Type = rpc.ReqEmpty
		}
	}
	return resp
}

// errnoOf finds the errno in a chain.
func errnoOf(err error) syscall.Errno {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if errors.Is(err, os.ErrNotExist) {
		return syscall.ENOENT
	}
	return 0
}
