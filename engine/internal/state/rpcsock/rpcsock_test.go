package rpcsock

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
	"stasis.example/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// written is what CRIU 4.2 writes of the socket of a Go program that has asked for its own dump.
func written() *entry.UnixSk {
	return &entry.UnixSk{
		ID: 11, Ino: 277414, Type: 5, State: 7, Flags: 2050, Uflags: 2, Name: []byte{}, NSID: new(uint32(2)),
		Opts: entry.SkOpts{
			SoSndbuf: 212992, SoRcvbuf: 212992, Reuseaddr: new(false), SoPriority: new(uint32(0)), SoRcvlowat: new(uint32(1)), SoPasscred: new(false),
			SoPasssec: new(false), SoDontroute: new(false), SoNoCheck: new(false), SoReuseport: new(false), SoBroadcast: new(false), SoKeepalive: new(false),
			SoOobinline: new(uint32(0)), SoBufLock: new(uint32(0)),
		},
	}
}

func decode(u *entry.UnixSk) (*snapshot.Tree, *images.Report) {
	r := new(images.Report)
	set := &images.Set{Files: []entry.File{{Type: entry.FDTypeUnixSk, ID: 11, Usk: u}}}
	tree := &snapshot.Tree{Files: []*snapshot.File{{ID: 11}}}
	Decode(set, tree, r)
	return tree, r
}

// What CRIU writes is read, and written again as it was.
func TestRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*entry.UnixSk){
		"as it is": func(*entry.UnixSk) {},
		"with everything set": func(u *entry.UnixSk) {
			u.Type, u.Opts.SoSndbuf, u.Opts.SoRcvTmoSec, u.Opts.SoRcvTmoUsec, u.Opts.SoSndTmoUsec = 1, 4608, 3, 500000, 1
			*u.Opts.SoPasscred, *u.Opts.SoPasssec, *u.Opts.SoPriority, *u.Opts.SoRcvlowat = true, true, 6, 2
		},
	} {
		u := written()
		change(u)
		tree, r := decode(u)
		if err := r.Err(); err != nil || len(r.Notes()) > 0 {
			t.Fatalf("%s: %v, %v", name, err, r.Notes())
		}
		again := &images.Set{Files: []entry.File{{Type: entry.FDTypeUnixSk, ID: 11}}}
		Encode(tree, again, r)
		if diff := cmp.Diff(u, again.Files[0].Usk); diff != "" {
			t.Errorf("%s (-CRIU +stasis):\n%s", name, diff)
		}
	}
}

func TestDamaged(t *testing.T) {
	for name, change := range map[string]func(*entry.UnixSk){
		"a peer":       func(u *entry.UnixSk) { u.Peer = 1 },
		"a state":      func(u *entry.UnixSk) { u.State = 1 },
		"a type":       func(u *entry.UnixSk) { u.Type = 99 },
		"a name":       func(u *entry.UnixSk) { u.Name = []byte("/run/x") },
		"other flags":  func(u *entry.UnixSk) { u.Uflags |= 1 },
		"microseconds": func(u *entry.UnixSk) { u.Opts.SoRcvTmoUsec = 1e6 },
		"a long time":  func(u *entry.UnixSk) { u.Opts.SoSndTmoSec = 1 << 63 },
	} {
		u := written()
		change(u)
		if _, r := decode(u); r.Err() == nil || !strings.Contains(r.Err().Error(), "files.img") {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
}
