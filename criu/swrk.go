package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// swrkSocket is the number of the RPC socket in the child. It is fixed and the files that the child inherits come
// behind it, so that no number of them can overwrite it.
const swrkSocket = 3

// closeGrace bounds how long Close waits for a child whose conversation is over.
const closeGrace = 10 * time.Second

// Swrk reaches CRIU by starting `criu swrk` as a child process, one for each conversation.
type Swrk struct {
	// Path is the binary: looked up in PATH unless it has a slash; "criu" if empty.
	Path string

	// Stdin, Stdout and Stderr are the child's; nil is /dev/null. With a nil Stderr what the child says there is kept
	// for the error of a child that dies. CRIU passes them on to a restored shell job.
	Stdin, Stdout, Stderr *os.File

	// ExtraFiles are inherited as descriptors 4 and up.
	ExtraFiles []*os.File

	// Env is the child's environment; nil is the caller's.
	Env []string

	// Dir is the child's working directory; "" is the caller's.
	Dir string

	// SysProcAttr is passed to os.StartProcess. Pdeathsig goes with the thread that made the call, not with the
	// process: lock the goroutine to its thread.
	SysProcAttr *syscall.SysProcAttr

	// Started, where set, is called with the child's pid between its start and the first request: the place to put
	// it into a cgroup. An error from it ends the conversation before anything was sent.
	Started func(pid int) error
}

func (s *Swrk) path() string {
	if s.Path == "" {
		return "criu"
	}
	return s.Path
}

func (s *Swrk) String() string { return s.path() + " swrk" }

// Open starts the child.
func (s *Swrk) Open(ctx context.Context, call Call) (Conn, error) {
	if call.Caller != nil {
		return nil, &Error{Stage: "options", Kind: ErrOptions, Err: errors.New("a swrk child cannot be asked on behalf of another process")}
	}
	if err := ctx.Err(); err != nil {
		return nil, connectError(s.path(), context.Cause(ctx))
	}
	path, err := exec.LookPath(s.path())
	if err != nil {
		return nil, connectError(s.path(), err)
	}
	c := &swrkConn{path: path, files: swrkSocket + 1 + len(s.ExtraFiles)}
	if err := c.start(s, call); err != nil {
		return nil, connectError(path, err)
	}
	if s.Started != nil {
		if err := s.Started(c.pid); err != nil {
			c.Abort()
			c.Close()
			return nil, connectError(path, fmt.Errorf("the Started hook failed: %w", err))
		}
	}
	return c, nil
}

// swrkConn is a conversation with a swrk child.
type swrkConn struct {
	*packetConn
	path       string
	pid        int
	files      int         // number of Call.Files[0] in the child
	process    *os.Process // nil for a self-dump's peer, which is not our child
	stderr     *os.File    // what the child says, nil where the caller has it
	inode      uint64      // of the child's end of the socket
	born       uint64      // start time of the child, in clock ticks since boot
	execCmd    bool
	restores   bool
	sibling    bool // the tree is to be the caller's child
	formerRoot bool // there was a process with the number of the root to be

	tree []int // pids of the tree that is to be restored

	succeeded atomic.Bool  // the last answer
	rootTask  atomic.Int64 // root of the tree that is being restored, once a notification told

	mu       sync.Mutex // guards what follows: Abort may come from another goroutine
	state    *os.ProcessState
	finished bool // finish was called
	reaped   bool
	aborted  bool
}

func (c *swrkConn) FileNumber(i int) int { return c.files + i }

// start makes the socket pair and the child. CRIU reads the peer's pid from the socket (SO_PEERCRED), so the pair must
// be made by the process that is to be dumped or whose descriptors are meant.
func (c *swrkConn) start(s *Swrk, call Call) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "rpc socket")
	defer theirs.Close()
	var st unix.Stat_t
	if err := unix.Fstat(pair[1], &st); err == nil {
		c.inode = st.Ino
	}
	c.packetConn = newPacketConn(pair[0], "rpc socket")
	c.execCmd, c.restores = call.ExecCmd, call.Op == rpc.ReqRestore
	if s.SysProcAttr == nil || s.SysProcAttr.Cloneflags&unix.CLONE_NEWPID == 0 { // else the numbers mean nothing here
		c.tree = call.TreePIDs
	}
	c.sibling = call.Sibling
	c.noteFormerRoot()
	attr := &os.ProcAttr{Dir: s.Dir, Env: s.Env, Sys: s.SysProcAttr}
	argv := []string{s.path(), "swrk", itoa(swrkSocket)}
	if call.SelfDump {
		err = c.startDetached(s, call, attr, argv, theirs)
	} else {
		err = c.startChild(s, call, attr, argv, theirs)
	}
	if err != nil {
		c.packetConn.Close()
		return err
	}
	c.born, _ = startTime(c.pid)
	return nil
}

func (c *swrkConn) startChild(s *Swrk, call Call, attr *os.ProcAttr, argv []string, socket *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	stderr := s.Stderr
	if stderr == nil {
		// A memory file, not a pipe: nobody has to read it, and what outlives this call can go on writing.
		fd, err := unix.MemfdCreate("swrk stderr", unix.MFD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("memfd_create", err)
		}
		c.stderr = os.NewFile(uintptr(fd), "swrk stderr")
		stderr = c.stderr
	}
	attr.Files = append([]*os.File{or(s.Stdin, null), or(s.Stdout, null), stderr, socket}, s.ExtraFiles...)
	attr.Files = append(attr.Files, call.Files...)
	if c.process, err = os.StartProcess(c.path, argv, attr); err != nil {
		c.closeStderr()
		return err
	}
	c.pid = c.process.Pid
	if err := c.watch(c.pid); err != nil {
		c.process.Kill()
		c.process.Wait()
		c.closeStderr()
		return err
	}
	return nil
}

func or(f, fallback *os.File) *os.File {
	if f == nil {
		return fallback
	}
	return f
}

// Recv adds to a broken conversation what became of the child.
func (c *swrkConn) Recv(ctx context.Context) (*Message, error) {
	msg, err := c.packetConn.Recv(ctx)
	if err == nil {
		if n := msg.Resp.Notify; c.restores && n != nil && n.PID != nil {
			c.rootTask.Store(int64(*n.PID))
		}
		c.succeeded.Store(msg.Resp.Success && msg.Resp.Type != rpc.ReqNotify)
		return msg, nil
	}
	return nil, c.explain(err)
}

// Send does the same: a child that could not even start is noticed here first.
func (c *swrkConn) Send(ctx context.Context, req *rpc.Req) error {
	return c.explain(c.packetConn.Send(ctx, req))
}

func (c *swrkConn) explain(err error) error {
	gone := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	e, ok := errors.AsType[*Error](err)
	if !ok || !gone || c.process == nil {
		return err
	}
	c.finish()
	c.killOrphans()
	e.Resource = c.path
	e.Err = fmt.Errorf("%s: %w", c.obituary(), e.Err)
	return e
}

// obituary says how the child ended and what it said.
func (c *swrkConn) obituary() string {
	text := "the peer closed the conversation without an answer"
	c.mu.Lock()
	state := c.state
	c.mu.Unlock()
	switch {
	case state == nil:
	case state.Success():
		text = "the peer ended with status 0 and without an answer; is it CRIU?"
	default:
		text = "the peer ended without an answer: " + state.String()
	}
	if said := c.said(); said != "" {
		text += ": " + said
	}
	return text
}

// said is the end of what the child wrote to its standard error.
func (c *swrkConn) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stderr == nil {
		return ""
	}
	end, err := c.stderr.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	const most = 1024
	buf := make([]byte, min(end, most))
	n, _ := c.stderr.ReadAt(buf, end-int64(len(buf)))
	lines := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == '\n' })
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	return strings.TrimSpace(strings.Join(lines, "; "))
}

func (c *swrkConn) closeStderr() {
	if c.stderr != nil {
		c.stderr.Close()
		c.stderr = nil
	}
}

// Close ends the conversation.
func (c *swrkConn) Close() error {
	err := c.finish()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeStderr()
	return err
}

// finish closes the socket, upon which CRIU exits by itself, and waits for that. The child's status says nothing that
// its answer did not: it is 255 after a conversation that the client ended where CRIU waited for more.
func (c *swrkConn) finish() error {
	err := c.packetConn.Close()
	c.mu.Lock()
	finished := c.finished
	c.finished = true
	c.mu.Unlock()
	if finished || c.process == nil {
		return err
	}
	if c.execCmd {
		c.process.Release() // it has become, or becomes, another program
		return err
	}
	kill := time.AfterFunc(closeGrace, func() { c.Abort() })
	defer kill.Stop()
	state, waitErr := c.process.Wait()
	c.mu.Lock()
	c.state, c.reaped = state, true
	c.mu.Unlock()
	if c.sibling && !c.succeeded.Load() {
		c.buryRoot()
	}
	// ECHILD: the host reaps all children by itself, or ignores SIGCHLD.
	if waitErr != nil && !errors.Is(waitErr, syscall.ECHILD) && err == nil {
		err = os.NewSyscallError("wait", waitErr)
	}
	return err
}
