//go:build amd64

package sched

import (
	"slices"
	"testing"
)

func TestCPUList(t *testing.T) {
	for text, want := range map[string][]uint64{"0": {1}, "0-3": {15}, "0-1,4": {0x13}, "0,64-65": {1, 3}} {
		if got, err := cpuList(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %x, %v, want %x", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "3-1", "1-", "0,,2"} {
		if got, err := cpuList(text); err == nil {
			t.Errorf("%q: %x", text, got)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		set, other []uint64
		want       bool
	}{
		{[]uint64{3}, []uint64{3}, true}, {[]uint64{7, 1}, []uint64{3}, true}, {[]uint64{1}, []uint64{3}, false},
		{[]uint64{3}, []uint64{3, 1}, false}, {[]uint64{3}, nil, false},
	} {
		if got := covers(tc.set, tc.other); got != tc.want {
			t.Errorf("covers(%x, %x) = %v", tc.set, tc.other, got)
		}
	}
}
