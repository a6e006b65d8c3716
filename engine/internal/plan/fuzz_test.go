package plan

import (
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"slices"
	"testing"
	"time"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/kinds"
	"stasis.example/image"

	"github.com/google/go-cmp/cmp"
)

// FuzzMake changes bytes of a golden dump and plans what comes out. An edit is four bytes: which image, two for the place in it, and what to
// put there. Whatever the images say: no crash, no hang, and either a plan or a refusal. A plan's snapshot, encoded
// and decoded again, is the same.
func FuzzMake(f *testing.F) {
	type file struct {
		name string
		data []byte
	}
	small := slices.DeleteFunc(slices.Clone(goldens), func(g goldenDump) bool { return g.name == "family" || g.name == "tree" })
	dumps := make([][]file, len(small))
	for i, g := range small {
		d := load(f, g.path)
		names, err := d.Names()
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			r, err := d.Open(name)
			if err != nil {
				f.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				f.Fatal(err)
			}
			r.Close()
			dumps[i] = append(dumps[i], file{name, data})
		}
	}
	f.Add(uint8(2), []byte{0, 0, 40, 7})
	f.Add(uint8(3), []byte{2, 0, 9, 200, 3, 1, 0, 255})
	f.Add(uint8(0), []byte{})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		n := int(which) % len(small)
		files := slices.Clone(dumps[n])
		for i := 0; i+4 <= len(edits) && i < 64; i += 4 {
			at := int(edits[i]) % len(files)
			data := slices.Clone(files[at].data)
			if len(data) == 0 {
				continue
			}
			data[int(binary.LittleEndian.Uint16(edits[i+1:]))%len(data)] = edits[i+3]
			files[at].data = data
		}
		d := image.NewMemDir(nil)
		for _, file := range files {
			write(t, d, file.name, file.data)
		}
		start := time.Now()
		p, err := Make(t.Context(), d, small[n].options)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if err != nil {
			if _, ok := errors.AsType[*images.Refusal](err); !ok {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		_ = p.String()
		r := new(images.Report)
		out := image.NewMemDir(nil)
		set := kinds.Encode(p.Tree, r)
		if err := set.Write(out); err != nil || !r.Empty() {
			t.Fatalf("what was decoded cannot be encoded: %v, %v", err, r.Err())
		}
		for _, g := range set.Ghosts { // which a dump writes while the tree stands still
			if err := image.WriteAll(out, image.GhostFile, uint64(g.ID), &g.Entry); err != nil {
				t.Fatal(err)
			}
		}
		again := kinds.Decode(images.Read(out, r), r)
		if err := r.Err(); err != nil {
			t.Fatalf("what was encoded is refused: %v", err)
		}
		if !reflect.DeepEqual(p.Tree, again) {
			t.Errorf("-first +second:\n%s", cmp.Diff(p.Tree, again))
		}
	})
}
