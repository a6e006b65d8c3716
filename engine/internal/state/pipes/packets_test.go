package pipes

import (
	"slices"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

func TestPackets(t *testing.T) {
	for _, want := range [][]uint32{{1}, {4096, 1, 300}, {}} {
		var size uint32
		for _, n := range want {
			size += n
		}
		got, ok := decodePackets(encodePackets(want), int(size))
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%v has become %v, %v", want, got, ok)
		}
	}
	for _, tc := range []struct {
		b    []byte
		size int
	}{
		{[]byte{1, 0, 0}, 1},
		{[]byte{1, 0, 0, 0}, 2},
		{[]byte{0, 0, 0, 0}, 0},
		{[]byte{0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0}, 1},
	} {
		if got, ok := decodePackets(tc.b, tc.size); ok {
			t.Errorf("%x was taken for %v, which make up %d bytes", tc.b, got, tc.size)
		}
	}
}

// The bounds of packets go through the images.
func TestPacketsRoundTrip(t *testing.T) {
	from := &snapshot.Tree{Pipes: []*snapshot.Pipe{
		{ID: 1, Capacity: 4096, Data: []byte("onethree"), Packets: []uint32{3, 5}}, {ID: 2, Data: []byte("stream")},
	}}
	set, report := new(images.Set), new(images.Report)
	Encode(from, set, report)
	to := new(snapshot.Tree)
	Decode(set, to, report)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	if len(to.Pipes) != 2 || !slices.Equal(to.Pipes[0].Packets, []uint32{3, 5}) || to.Pipes[1].Packets != nil {
		t.Errorf("%+v", to.Pipes)
	}
	set.Pipes[0].Data = set.Pipes[0].Data[:7]
	Decode(set, new(snapshot.Tree), report)
	if report.Err() == nil {
		t.Error("packets that are longer than the data are not noticed")
	}
}
