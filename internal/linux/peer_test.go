package linux

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPeerGroups(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	got, err := PeerGroups(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, g := range got {
		numbers = append(numbers, int(g))
	}
	slices.Sort(numbers)
	slices.Sort(want)
	if !slices.Equal(numbers, want) {
		t.Errorf("the peer, which is this process, has the groups %v, getgroups says %v", numbers, want)
	}
}

func TestPeerGroupsOfNoSocket(t *testing.T) {
	if _, err := PeerGroups(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("of descriptor -1: %v", err)
	}
}
