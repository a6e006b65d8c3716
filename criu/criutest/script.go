package criutest

import (
	"syscall"
	"time"

	"stasis.example/criu/rpc"
)

// A Script is what a peer does in one conversation. When it is through, the peer leaves: it closes the conversation, and
// as a child process it exits with status 0.
type Script []Step

// A Step is one thing that a peer does. The functions of this package make them.
type Step struct {
	Do     Action
	Data   []byte        `json:",omitempty"` // Send: the packet
	Files  []string      `json:",omitempty"` // Send, Notify: contents of the files whose descriptors go along
	Name   string        `json:",omitempty"` // Notify
	PID    int           `json:",omitempty"` // Notify
	Number int           `json:",omitempty"` // Exit: the status; Kill: the signal
	Pause  time.Duration `json:",omitempty"` // Sleep

	// Func is called by a peer in this process; a peer that is a process of its own cannot have it.
	Func func(*Conn) error `json:"-"`
}

// Action is the kind of a step.
type Action string

// The kinds of steps.
const (
	ActReceive Action = "receive"
	ActSend    Action = "send"
	ActNotify  Action = "notify"
	ActAnswer  Action = "answer"
	ActServe   Action = "serve"
	ActHang    Action = "hang"
	ActSleep   Action = "sleep"
	ActExit    Action = "exit"
	ActKill    Action = "kill"
	ActStderr  Action = "stderr"
	ActClose   Action = "close"
	ActFunc    Action = "func"
)

// Receive takes the client's next packet. A client that leaves instead ends the script.
func Receive() Step { return Step{Do: ActReceive} }

// Serve behaves like CRIU until the conversation is over: see [Conn.Serve].
func Serve() Step { return Step{Do: ActServe} }

// Answer answers the request that was received last as Serve would, without notifications.
func Answer() Step { return Step{Do: ActAnswer} }

// Send sends a response, or a notification whose answer is left unread.
func Send(resp *rpc.Resp) Step { return Step{Do: ActSend, Data: resp.Append(nil)} }

// Fail sends a response that reports failure to the request that was received last. Zero and "" are left out of it.
func Fail(errno syscall.Errno, message string) Step {
	return Step{Do: ActAnswer, Number: int(errno), Name: message, Data: []byte{1}}
}

// SendRaw sends a packet that need not be a message at all, and may be empty.
func SendRaw(packet []byte) Step { return Step{Do: ActSend, Data: packet} }

// Notify sends a notification and receives the answer to it, which is recorded as a request. A pid of 0 is left out. The
// descriptors of files with the given contents go along.
func Notify(name string, pid int, contents ...string) Step {
	return Step{Do: ActNotify, Name: name, PID: pid, Files: contents}
}

// Hang does nothing until the client has left or the peer is stopped. It does not read what the client sends.
func Hang() Step { return Step{Do: ActHang} }

// Sleep waits.
func Sleep(d time.Duration) Step { return Step{Do: ActSleep, Pause: d} }

// Exit ends a peer that is a child process with a status, and the conversation of any other.
func Exit(status int) Step { return Step{Do: ActExit, Number: status} }

// Kill ends a peer that is a child process by a signal, and the conversation of any other.
func Kill(sig syscall.Signal) Step { return Step{Do: ActKill, Number: int(sig)} }

// Stderr writes to the standard error of a peer that is a child process.
func Stderr(text string) Step { return Step{Do: ActStderr, Name: text} }

// Close closes the conversation, and goes on with the script.
func Close() Step { return Step{Do: ActClose} }

// Func calls f in a peer in this process.
func Func(f func(*Conn) error) Step { return Step{Do: ActFunc, Func: f} }
