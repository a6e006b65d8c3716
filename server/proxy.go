package server

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
)

// TakesOver is a Transport whose peer can take the client's own connection over, which is the only way to have done what
// rests on the kinship or the socket of the client itself: a client that dumps itself, a tree that is restored as the
// client's child.
type TakesOver interface {
	// TakeOver turns this process into the peer, which finds the connection at descriptor fd. It returns on failure only.
	TakeOver(fd int) error
}

// Proxy is the Transport of a proxy: a `criu swrk` of its own for each conversation.
type Proxy struct {
	criu.Swrk
}

// TakeOver turns this process into `criu swrk FD`.
func (p *Proxy) TakeOver(fd int) error {
	name := p.Path
	if name == "" {
		name = "criu"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	env := p.Env
	if env == nil {
		env = os.Environ()
	}
	err = syscall.Exec(path, []string{name, "swrk", strconv.Itoa(fd)}, env)
	unix.CloseOnExec(fd)
	unix.SetNonblock(fd, true)
	return fmt.Errorf("cannot run %s: %w", path, err)
}

// confined is the proxy for a client that is not trusted: the peer is put under the client's limits before it reads the
// first request.
func (p *Proxy) confined(c *client) *Proxy {
	q := &Proxy{Swrk: p.Swrk}
	q.Started = func(pid int) error {
		if p.Started != nil {
			if err := p.Started(pid); err != nil {
				return err
			}
		}
		return c.confine(pid)
	}
	return q
}

var _ interface {
	criu.Transport
	TakesOver
} = (*Proxy)(nil)

// Open starts a CRIU.
func (p *Proxy) Open(ctx context.Context, call criu.Call) (criu.Conn, error) {
	return p.Swrk.Open(ctx, call)
}
