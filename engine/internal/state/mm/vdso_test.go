//go:build amd64

package mm

import (
	"os"
	"slices"
	"testing"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/internal/proc"
)

// ownCode is the vDSO of this test program.
func ownCode(t testing.TB) []byte {
	t.Helper()
	mappings, err := proc.New(os.DirFS("/proc")).Process(os.Getpid()).Maps()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(mappings, func(m proc.Mapping) bool { return m.Path == "[vdso]" })
	if i < 0 {
		t.Fatal("this program has no vDSO")
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	code := make([]byte, mappings[i].End-mappings[i].Start)
	if _, err := memory.ReadAt(code, int64(mappings[i].Start)); err != nil {
		t.Fatal(err)
	}
	return code
}

func TestVDSO(t *testing.T) {
	code := ownCode(t)
	names, err := symbols(code)
	if err != nil || names["__vdso_clock_gettime"] == 0 {
		t.Fatalf("%v, %v", names, err)
	}
	own := &VDSO{Data: 0x4000, Code: code}
	const at = 0x7000000000
	space := func() *snapshot.Space {
		return &snapshot.Space{VMAs: []snapshot.VMA{
			{Range: snapshot.Range{Start: 0x400000, End: 0x401000}, Kind: snapshot.AnonPrivate},
			{Range: snapshot.Range{Start: at, End: at + 0x4000}, Kind: snapshot.VVar},
			{Range: snapshot.Range{Start: at + 0x4000, End: at + 0x4000 + uint64(len(code))}, Kind: snapshot.VDSO},
		}}
	}
	text := at + uint64(0x4000)
	clock := names["__vdso_clock_gettime"]
	changed := slices.Clone(code)
	changed[clock+20] ^= 1
	padded := slices.Clone(code)
	padded[len(padded)-1] ^= 1
	renamed := slices.Clone(code)
	for i := range len(renamed) - 4 {
		if string(renamed[i:i+4]) == "time" {
			renamed[i] = 'l'
		}
	}
	shorter := space()
	shorter.VMAs[1].Start += 0x1000
	for _, c := range []struct {
		name     string
		space    *snapshot.Space
		code     []byte
		pointers []uint64
		same     bool
	}{
		{"the same", space(), code, []uint64{text + clock}, true},
		{"another byte in the room behind the code", space(), padded, []uint64{text + clock}, true},
		{"another byte in a function", space(), changed, []uint64{0x400000}, true},
		{"another byte in a function, and somebody is there", space(), changed, []uint64{text + clock}, false},
		{"other functions", space(), renamed, nil, false},
		{"less data", shorter, code, nil, false},
		{"more code", space(), append(slices.Clone(code), make([]byte, 4096)...), nil, false},
		{"no ELF file", space(), make([]byte, len(code)), nil, false},
		{"not known", space(), nil, nil, true},
	} {
		if c.name == "more code" {
			c.space.VMAs[2].End += 4096
		}
		if same := own.Same(c.space, c.code, c.pointers); same != c.same {
			t.Errorf("%s: %v", c.name, same)
		}
	}

	// A thread in the first bytes of a function goes on in a copy of the old code; one at its first byte, or further on, stays.
	for _, c := range []struct{ ip, to uint64 }{{text + clock, 0}, {text + clock + jumpSize, 0}, {text + clock + 3, 0x104000 + uint64(len(code)) + 0x4000 + clock + 3}} {
		s := space()
		room := own.Room(s)
		moved, err := own.Move(s, code, []uint64{c.ip}, 0x100000)
		if err != nil {
			t.Fatal(err)
		}
		if data, code := kernelMappings(s); data.Start != 0x100000 || code.Start != 0x104000 || s.VMAs[len(s.VMAs)-1].Kind != snapshot.AnonPrivate {
			t.Errorf("after the move: %+v", s.VMAs)
		}
		if moved.Pointers[c.ip] != c.to {
			t.Errorf("a thread at %#x goes on at %#x, want %#x", c.ip, moved.Pointers[c.ip], c.to)
		}
		patch := func(addr uint64, with []byte) {
			if i := slices.IndexFunc(moved.Patches, func(p Patch) bool { return p.Addr == addr }); i < 0 || !slices.Equal(moved.Patches[i].Code, with) {
				t.Errorf("what is written to %#x is not among %+v", addr, moved.Patches)
			}
		}
		for _, name := range []string{"__vdso_clock_gettime", "__vdso_gettimeofday"} {
			patch(text+names[name], jump(0x104000+names[name]))
		}
		i := slices.IndexFunc(s.VMAs, func(v snapshot.VMA) bool { return v.Start == own.Len()+0x100000 })
		if (i >= 0) != (c.to > 0) {
			t.Fatalf("the copy of the old code is mapping %d", i)
		}
		if i >= 0 {
			if v := s.VMAs[i]; v.Kind != snapshot.AnonPrivate || v.End != 0x100000+room {
				t.Errorf("the copy is %+v, the room for it ends at %#x", v, 0x100000+room)
			}
			patch(s.VMAs[i].Start+0x4000, code)
		}
	}
}

// Whatever the bytes are, they are read within their bounds.
func FuzzVDSO(f *testing.F) {
	code := ownCode(f)
	f.Add(code)
	f.Add(code[:0x500])
	f.Fuzz(func(t *testing.T, b []byte) {
		found, err := symbols(b)
		if (err == nil) != (len(found) > 0) {
			t.Errorf("%v, %v", found, err)
		}
		for name, at := range found {
			if at == 0 || at >= uint64(len(b)) {
				t.Errorf("%s is at %#x of %#x", name, at, len(b))
			}
		}
		codeEnd(b)
	})
}
