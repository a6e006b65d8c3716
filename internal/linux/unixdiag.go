package linux

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// UnixPeer returns the inode of the socket that a unix socket is connected to, given its own, 0 where it is connected to none.
// Both must be in the network namespace of the calling thread (sock_diag(7)).
func UnixPeer(inode uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, os.NewSyscallError("socket NETLINK_SOCK_DIAG", err)
	}
	defer unix.Close(fd)
	const (
		byFamily = 20 // SOCK_DIAG_BY_FAMILY
		showPeer = 4  // UDIAG_SHOW_PEER
		attrPeer = 2  // UNIX_DIAG_PEER
		reqLen   = 24 // struct unix_diag_req
		msgLen   = 16 // struct unix_diag_msg
	)
	ne := binary.NativeEndian
	req := make([]byte, unix.NLMSG_HDRLEN+reqLen)
	ne.PutUint32(req, uint32(len(req)))
	ne.PutUint16(req[4:], byFamily)
	ne.PutUint16(req[6:], unix.NLM_F_REQUEST)
	body := req[unix.NLMSG_HDRLEN:]
	body[0] = unix.AF_UNIX
	ne.PutUint32(body[4:], ^uint32(0)) // in any state
	ne.PutUint32(body[8:], inode)
	ne.PutUint32(body[12:], showPeer)
	ne.PutUint64(body[16:], ^uint64(0)) // no cookie
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto NETLINK_SOCK_DIAG", err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, os.NewSyscallError("recvfrom NETLINK_SOCK_DIAG", err)
	}
	if buf = buf[:n]; n < unix.NLMSG_HDRLEN+4 {
		return 0, fmt.Errorf("sock_diag: an answer of %d bytes", n)
	}
	if ne.Uint16(buf[4:]) == unix.NLMSG_ERROR {
		return 0, fmt.Errorf("sock_diag: unix socket %d: %w", inode, unix.Errno(-int32(ne.Uint32(buf[unix.NLMSG_HDRLEN:]))))
	}
	for rest := buf[min(n, unix.NLMSG_HDRLEN+msgLen):]; len(rest) >= unix.SizeofRtAttr; {
		size := int(ne.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			return 0, fmt.Errorf("sock_diag: an attribute of %d bytes in %d", size, len(rest))
		}
		if ne.Uint16(rest[2:]) == attrPeer && size >= unix.SizeofRtAttr+4 {
			return ne.Uint32(rest[unix.SizeofRtAttr:]), nil
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	return 0, nil
}
