package criutest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
)

// A Conn is the peer's side of one conversation.
type Conn struct {
	// Last is the request that was received last; an answer to a notification is none.
	Last *rpc.Req

	conn   *net.UnixConn
	record func([]byte) error
	stop   <-chan struct{} // closed when a hanging peer is to give up
	child  bool            // this process is the peer and nothing else
	in     []byte
}

// errExit ends a script early.
var errExit = errors.New("the script ends")

// newConn takes over a connected SOCK_SEQPACKET socket.
func newConn(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%s is not a unix socket", f.Name())
	}
	return &Conn{conn: u}, nil
}

// Recv receives the client's next packet and records it. At the end of the conversation it returns io.EOF.
func (c *Conn) Recv() (*rpc.Req, error) {
	if c.in == nil {
		c.in = make([]byte, rpc.MaxMessage)
	}
	n, _, _, _, err := c.conn.ReadMsgUnix(c.in, nil)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	if err := c.record(c.in[:n]); err != nil {
		return nil, err
	}
	req := new(rpc.Req)
	if err := req.Decode(c.in[:n]); err != nil {
		return nil, err
	}
	if req.Type != rpc.ReqNotify {
		c.Last = req
	}
	return req, nil
}

// Send sends a response or notification, with descriptors.
func (c *Conn) Send(resp *rpc.Resp, files ...*os.File) error { return c.send(resp.Append(nil), files) }

func (c *Conn) send(packet []byte, files []*os.File) error {
	if len(packet) > 64<<10 {
		if err := c.makeRoom(2 * len(packet)); err != nil {
			return err
		}
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err := c.conn.WriteMsgUnix(packet, oob, nil)
	return err
}

// makeRoom lets the socket take packets larger than the system's limit for ordinary users, which root may do.
func (c *Conn) makeRoom(size int) error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size)
	})
	return errors.Join(err, os.NewSyscallError("setsockopt", setErr))
}

// Notify sends a notification and reports whether the client agreed to it.
func (c *Conn) Notify(name string, pid int, files ...*os.File) (bool, error) {
	resp := &rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: &rpc.Notify{Script: &name}}
	if pid != 0 {
		resp.Notify.PID = new(int32(pid))
	}
	if err := c.Send(resp, files...); err != nil {
		return false, err
	}
	reply, err := c.Recv()
	if err != nil {
		return false, err
	}
	if reply.Type != rpc.ReqNotify {
		return false, fmt.Errorf("the client answered a notification with %v", reply.Type)
	}
	return reply.NotifySuccess != nil && *reply.NotifySuccess, nil
}

// ClientPID is the pid of the client as the kernel tells it (SO_PEERCRED, unix(7)).
func (c *Conn) ClientPID() (int, error) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var getErr error
	if err := raw.Control(func(fd uintptr) {
		cred, getErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if getErr != nil {
		return 0, os.NewSyscallError("getsockopt", getErr)
	}
	return int(cred.Pid), nil
}

// run follows a script. A client that leaves ends it, which is no error.
func (c *Conn) run(script Script) error {
	for _, s := range script {
		switch err := c.step(s); {
		case errors.Is(err, errExit), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed),
			errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", s.Do, err)
		}
	}
	return nil
}

func (c *Conn) step(s Step) error {
	switch s.Do {
	case ActReceive:
		_, err := c.Recv()
		return err
	case ActSend, ActNotify:
		return c.withFiles(s)
	case ActAnswer:
		return c.answerStep(s)
	case ActServe:
		return c.Serve()
	case ActHang:
		return c.hang()
	case ActSleep:
		select {
		case <-time.After(s.Pause):
		case <-c.stop:
		}
		return nil
	case ActExit:
		if c.child {
			os.Exit(s.Number)
		}
		return errExit
	case ActKill:
		if c.child {
			// Go catches some signals by itself; a signal of the kernel's default action ends the process at once.
			unix.Kill(os.Getpid(), syscall.Signal(s.Number))
			time.Sleep(time.Minute)
		}
		return errExit
	case ActStderr:
		_, err := os.Stderr.WriteString(s.Name)
		return err
	case ActClose:
		return c.conn.Close()
	case ActFunc:
		if s.Func == nil {
			return errors.New("functions do not travel to a peer that is a process of its own")
		}
		return s.Func(c)
	}
	return fmt.Errorf("unknown step %q", s.Do)
}

// withFiles performs a step that passes descriptors.
func (c *Conn) withFiles(s Step) error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, content := range s.Files {
		f, err := memoryFile(content)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	if s.Do == ActSend {
		return c.send(s.Data, files)
	}
	_, err := c.Notify(s.Name, s.PID, files...)
	return err
}

// memoryFile returns a file that can be read from its beginning.
func memoryFile(content string) (*os.File, error) {
	fd, err := unix.MemfdCreate("criutest", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "memory file")
	if _, err := io.Copy(f, strings.NewReader(content)); err == nil {
		_, err = f.Seek(0, io.SeekStart)
		if err == nil {
			return f, nil
		}
	}
	f.Close()
	return nil, err
}

func (c *Conn) answerStep(s Step) error {
	if c.Last == nil {
		return errors.New("nothing was received yet")
	}
	if len(s.Data) == 0 {
		return c.Send(Reply(c.Last))
	}
	resp := &rpc.Resp{Type: c.Last.Type}
	if s.Number != 0 {
		resp.CrErrno = new(int32(s.Number))
	}
	if s.Name != "" {
		resp.CrErrmsg = &s.Name
	}
	return c.Send(resp)
}

// hang waits for the end without reading: the client's packets stay in the socket.
func (c *Conn) hang() error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var gone bool
		if err := raw.Control(func(fd uintptr) {
			// Neither POLLIN nor POLLOUT: the end alone is told without being asked for.
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 0)
			gone = err == nil && n > 0
		}); err != nil {
			return err
		}
		if gone {
			return errExit
		}
		select {
		case <-c.stop:
			return errExit
		case <-time.After(10 * time.Millisecond):
		}
	}
}
