//go:build amd64

package rpcsock

import (
	"fmt"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

// Collect claims the socket of the conversation, where a process of the tree has asked for the dump.
func Collect(t *collect.Tree) error {
	if t.RPCSocket == 0 {
		return nil
	}
	link := fmt.Sprintf("socket:[%d]", t.RPCSocket)
	for _, f := range t.Files.All {
		if f.Object != nil || f.FD < 0 || f.Link != link {
			continue
		}
		if err := collectSocket(t, f); err != nil {
			return fmt.Errorf("%s: %w", f.Where(), err)
		}
	}
	return nil
}

func collectSocket(t *collect.Tree, f *collect.File) error {
	fd, err := f.Take()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	o := &snapshot.RPCSocket{Inode: uint32(t.RPCSocket)}
	ns, err := f.Dir.NS("net")
	if err != nil {
		return err
	}
	o.NetNS = t.Namespace(ns)
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("getsockopt(SO_DOMAIN): %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	// Package unix takes one without a name for an abstract one that is empty.
	if address, ok := name.(*unix.SockaddrUnix); domain != unix.AF_UNIX || !ok || address.Name != "" && address.Name != "@" {
		t.Report.Unsupported(f.Where(), "the conversation about this dump is held on a socket that has a name")
		return nil
	}
	// Inherently nothing comes before the answer. What came would be lost.
	if unread, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || unread > 0 {
		t.Report.Unsupported(f.Where(), "the conversation about this dump has %d bytes that the process has not read", unread)
		return err
	}
	for _, opt := range []struct {
		number int
		name   string
		into   func(int)
	}{
		{unix.SO_TYPE, "SO_TYPE", intoNumber(&o.Type)}, {unix.SO_SNDBUF, "SO_SNDBUF", intoNumber(&o.SendBuffer)}, {unix.SO_RCVBUF, "SO_RCVBUF", intoNumber(&o.ReceiveBuffer)},
		{unix.SO_PRIORITY, "SO_PRIORITY", intoNumber(&o.Priority)}, {unix.SO_RCVLOWAT, "SO_RCVLOWAT", intoNumber(&o.ReceiveLow)},
		{unix.SO_PASSCRED, "SO_PASSCRED", intoTruth(&o.PassCred)}, {unix.SO_PASSSEC, "SO_PASSSEC", intoTruth(&o.PassSec)},
	} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt.number)
		if err != nil {
			return fmt.Errorf("getsockopt(%s): %w", opt.name, err)
		}
		opt.into(v)
	}
	for _, opt := range []struct {
		number int
		name   string
		into   *snapshot.Timespec
	}{{unix.SO_SNDTIMEO, "SO_SNDTIMEO", &o.SendTimeout}, {unix.SO_RCVTIMEO, "SO_RCVTIMEO", &o.ReceiveTimeout}} {
		v, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, opt.number)
		if err != nil {
			return fmt.Errorf("getsockopt(%s): %w", opt.name, err)
		}
		*opt.into = snapshot.Timespec{Sec: v.Sec, Nsec: v.Usec * 1000}
	}
	f.Object = o
	return nil
}

// intoNumber and intoTruth put what the kernel says where it belongs.
func intoNumber(to *uint32) func(int) { return func(v int) { *to = uint32(v) } }
func intoTruth(to *bool) func(int)    { return func(v int) { *to = v != 0 } }
