package linux_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/internal/linux"
)

func TestUnixPeer(t *testing.T) {
	inode := func(fd int) uint32 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return uint32(st.Ino)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b := inode(pair[0]), inode(pair[1])
	for _, c := range []struct{ of, want uint32 }{{a, b}, {b, a}, {inode(alone), 0}} {
		if got, err := linux.UnixPeer(c.of); err != nil || got != c.want {
			t.Errorf("the peer of %d: %d, %v, want %d", c.of, got, err, c.want)
		}
	}
	for _, fd := range append(pair[:], alone) {
		unix.Close(fd)
	}
	if got, err := linux.UnixPeer(a); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the peer of a socket that is gone: %d, %v", got, err)
	}
}
