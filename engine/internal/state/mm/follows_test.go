//go:build amd64

package mm

import (
	"testing"

	"golang.org/x/sys/unix"

	"stasis.example/engine/internal/snapshot"
)

// Mappings are made together only where the kernel would make one of them.
func TestFollows(t *testing.T) {
	const page = 4096
	anon := func(first, pages uint64, prot uint32) snapshot.VMA {
		return snapshot.VMA{
			Range: snapshot.Range{Start: first * page, End: (first + pages) * page}, Kind: snapshot.AnonPrivate, Prot: prot,
			Flags: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, Accounted: true,
		}
	}
	file := func(first, offset uint64, id snapshot.FileID) snapshot.VMA {
		v := anon(first, 1, unix.PROT_READ)
		v.Kind, v.Flags, v.Accounted, v.File, v.Offset = snapshot.FilePrivate, unix.MAP_PRIVATE, false, id, offset*page
		return v
	}
	with := func(v snapshot.VMA, change func(*snapshot.VMA)) snapshot.VMA {
		change(&v)
		return v
	}
	const rw = unix.PROT_READ | unix.PROT_WRITE
	for _, tc := range []struct {
		name string
		vmas []snapshot.VMA
		want int
	}{
		{"one", []snapshot.VMA{anon(1, 1, rw)}, 1},
		{"written once and not any more", []snapshot.VMA{anon(1, 1, rw), anon(2, 3, unix.PROT_READ), anon(5, 1, unix.PROT_NONE)}, 2},
		{"a name, and advice that comes later", []snapshot.VMA{anon(1, 1, rw), with(anon(2, 1, rw), func(v *snapshot.VMA) { v.Name, v.Advice = "x", 1<<unix.MADV_DONTFORK })}, 2},
		{"advice that comes first", []snapshot.VMA{anon(1, 1, rw), with(anon(2, 1, rw), func(v *snapshot.VMA) { v.Advice = 1 << unix.MADV_HUGEPAGE })}, 1},
		{"a hole", []snapshot.VMA{anon(1, 1, rw), anon(3, 1, rw)}, 1},
		{"never written", []snapshot.VMA{anon(1, 1, rw), with(anon(2, 1, unix.PROT_READ), func(v *snapshot.VMA) { v.Accounted = false })}, 1},
		{"a stack that grows", []snapshot.VMA{
			with(anon(1, 1, rw), func(v *snapshot.VMA) { v.Flags |= unix.MAP_GROWSDOWN }), with(anon(2, 1, rw), func(v *snapshot.VMA) { v.Flags |= unix.MAP_GROWSDOWN }),
		}, 1},
		{"not reserved", []snapshot.VMA{anon(1, 1, rw), with(anon(2, 1, rw), func(v *snapshot.VMA) { v.Flags |= unix.MAP_NORESERVE })}, 1},
		{"a file in two parts", []snapshot.VMA{file(1, 7, 3), file(2, 8, 3)}, 2},
		{"a file twice", []snapshot.VMA{file(1, 7, 3), file(2, 7, 3)}, 1},
		{"two files", []snapshot.VMA{file(1, 7, 3), file(2, 8, 4)}, 1},
		{"a file and memory", []snapshot.VMA{file(1, 7, 3), anon(2, 1, unix.PROT_READ)}, 1},
		{"of the kernel", []snapshot.VMA{{Range: snapshot.Range{Start: page, End: 2 * page}, Kind: snapshot.VVar}, {Range: snapshot.Range{Start: 2 * page, End: 3 * page}, Kind: snapshot.VVar}}, 1},
	} {
		v, n := snapshot.Joined(tc.vmas, follows)
		if n != tc.want || v.Start != tc.vmas[0].Start || v.End != tc.vmas[tc.want-1].End {
			t.Errorf("%s: %d of them are %#x-%#x, want %d", tc.name, n, v.Start, v.End, tc.want)
		}
	}
}
