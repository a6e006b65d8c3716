//go:build amd64

package rpcsock

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/snapshot"
)

// Open makes the socket, with the answer in it.
func Open(o *snapshot.RPCSocket, answer []byte) (f *apply.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, int(o.Type)|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair of type %d: %w", o.Type, err)
	}
	defer unix.Close(pair[1])
	defer func() {
		if err != nil {
			_ = unix.Close(pair[0])
		}
	}()
	if err := setOptions(pair[0], o); err != nil {
		return nil, err
	}
	if err := unix.Send(pair[1], answer, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
		return nil, fmt.Errorf("the answer cannot be put into the socket: %w", err)
	}
	return apply.NewFile(pair[0]), nil
}

// setOptions sets what is not as it is with every new socket.
func setOptions(fd int, o *snapshot.RPCSocket) error {
	for _, opt := range []struct {
		number int
		name   string
		want   uint32
		double bool // the kernel doubles what it is given
	}{
		{unix.SO_SNDBUF, "SO_SNDBUF", o.SendBuffer, true}, {unix.SO_RCVBUF, "SO_RCVBUF", o.ReceiveBuffer, true},
		{unix.SO_PRIORITY, "SO_PRIORITY", o.Priority, false}, {unix.SO_RCVLOWAT, "SO_RCVLOWAT", o.ReceiveLow, false},
		{unix.SO_PASSCRED, "SO_PASSCRED", number(o.PassCred), false}, {unix.SO_PASSSEC, "SO_PASSSEC", number(o.PassSec), false},
	} {
		now, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt.number)
		if err != nil {
			return fmt.Errorf("getsockopt(%s): %w", opt.name, err)
		}
		if uint32(now) == opt.want {
			continue
		}
		if opt.double {
			opt.want /= 2
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt.number, int(opt.want)); err != nil {
			return fmt.Errorf("setsockopt(%s, %d): %w", opt.name, opt.want, err)
		}
	}
	for _, opt := range []struct {
		number int
		name   string
		want   snapshot.Timespec
	}{{unix.SO_SNDTIMEO, "SO_SNDTIMEO", o.SendTimeout}, {unix.SO_RCVTIMEO, "SO_RCVTIMEO", o.ReceiveTimeout}} {
		if opt.want.IsZero() {
			continue
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt.number, &unix.Timeval{Sec: opt.want.Sec, Usec: opt.want.Nsec / 1000}); err != nil {
			return fmt.Errorf("setsockopt(%s): %w", opt.name, err)
		}
	}
	return nil
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
