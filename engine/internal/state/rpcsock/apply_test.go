//go:build amd64

package rpcsock

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
)

// The answer is in the socket, and behind it the end.
func TestOpen(t *testing.T) {
	o := &snapshot.RPCSocket{Type: unix.SOCK_SEQPACKET, SendBuffer: 9216, ReceiveBuffer: 212992, ReceiveLow: 1, PassCred: true,
		ReceiveTimeout: snapshot.Timespec{Sec: 5, Nsec: 500e6}}
	f, err := Open(o, []byte("answer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	buf := make([]byte, 100)
	n, _, _, _, err := unix.Recvmsg(fd, buf, nil, 0)
	if err != nil || string(buf[:n]) != "answer" {
		t.Errorf("received %q, %v", buf[:n], err)
	}
	if n, _, err := unix.Recvfrom(fd, buf, 0); n != 0 || err != nil {
		t.Errorf("behind it: %d bytes, %v, want the end", n, err)
	}
	if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil || v != int(o.SendBuffer) {
		t.Errorf("SO_SNDBUF is %d, %v", v, err)
	}
	if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED); err != nil || v != 1 {
		t.Errorf("SO_PASSCRED is %d, %v", v, err)
	}
	if v, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO); err != nil || v.Sec != 5 || v.Usec != 500000 {
		t.Errorf("SO_RCVTIMEO is %v, %v", v, err)
	}
	if _, err := Open(&snapshot.RPCSocket{Type: 99}, nil); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ESOCKTNOSUPPORT) {
		t.Errorf("of a type that there is not: %v", err)
	}
}
