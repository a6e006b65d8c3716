package snapshot

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// layouts of three processors: with AVX-512 and protection keys, with AVX alone, and before XSAVE.
func layouts() (big, avx, old *XLayout) {
	big = &XLayout{Size: 2696, SupportedBV: 0x2e7}
	for n, at := range map[int][2]uint32{XAVX: {576, 256}, XOpmask: {1088, 64}, XZMMHi256: {1152, 512}, XHi16ZMM: {1664, 1024}, XPKRU: {2688, 8}} {
		big.Offset[n], big.Len[n] = at[0], at[1]
	}
	avx = &XLayout{Size: 832, SupportedBV: 7}
	avx.Offset[XAVX], avx.Len[XAVX] = 576, 256
	return big, avx, &XLayout{Size: 512, Legacy: true}
}

// buffer makes an XSAVE buffer as a kernel would: reserved bytes are zero.
func buffer(l *XLayout, used uint64) []byte {
	r := rand.New(rand.NewPCG(1, used))
	b := make([]byte, l.Size)
	fill := func(from, to int) {
		for i := from; i < to; i++ {
			b[i] = byte(r.Uint32())
		}
	}
	fill(0, 416)
	if l.Legacy {
		return b
	}
	b[512], b[513] = byte(used), byte(used>>8)
	for n := 2; n < 64; n++ {
		if used>>n&1 != 0 {
			fill(int(l.Offset[n]), int(l.Offset[n]+l.Len[n]))
		}
	}
	return b
}

func TestXStateRoundTrip(t *testing.T) {
	big, avx, old := layouts()
	for _, c := range []struct {
		l    *XLayout
		used uint64
	}{{big, 0x2e7}, {big, 0x3}, {big, 0}, {avx, 7}, {avx, 3}, {old, 0}} {
		b := buffer(c.l, c.used)
		x, err := c.l.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.l.Bytes(&x)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, again) {
			t.Errorf("used %#x:\n%s", c.used, cmp.Diff(b, again))
		}
	}
}

// TestXStateMoves takes state to another processor, where components are elsewhere, or are not.
func TestXStateMoves(t *testing.T) {
	big, avx, old := layouts()
	moved := *big
	moved.Offset[XPKRU], moved.Size = 2752, 2760
	x, err := big.Parse(buffer(big, 0x2e7))
	if err != nil {
		t.Fatal(err)
	}
	b, err := moved.Bytes(&x)
	if err != nil {
		t.Fatal(err)
	}
	there, err := moved.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x, there); diff != "" {
		t.Errorf("-here +there:\n%s", diff)
	}
	for _, l := range []*XLayout{avx, old} {
		if _, err := l.Bytes(&x); err == nil || !strings.Contains(err.Error(), "the processor has no extended state") {
			t.Errorf("state of AVX-512 on an older processor: %v", err)
		}
	}
	// What is not in use need not fit.
	x, err = big.Parse(buffer(big, 7))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := avx.Bytes(&x); err != nil {
		t.Errorf("state of AVX: %v", err)
	}
	x.Components = x.Components[1:]
	if _, err := avx.Bytes(&x); err == nil {
		t.Error("state that is in use and missing")
	}
}

func TestXStateBad(t *testing.T) {
	big, _, _ := layouts()
	if _, err := big.Parse(make([]byte, 511)); err == nil {
		t.Error("511 bytes")
	}
	b := buffer(big, 0x2e7)
	if _, err := big.Parse(b[:2000]); err == nil {
		t.Error("a buffer that ends in a component")
	}
	b[527] = 0x80
	if _, err := big.Parse(b); err == nil {
		t.Error("the compacted format")
	}
	l := *big
	l.MXCSRMask = 0xffbf
	if _, err := l.Bytes(&XState{MXCSR: 1 << 17}); err == nil {
		t.Error("mxcsr with a bit that is not there")
	}
}
