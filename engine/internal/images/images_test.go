package images

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"stasis.example/image"
	"stasis.example/image/entry"
)

func TestReport(t *testing.T) {
	var r Report
	if r.Err() != nil || !r.Empty() {
		t.Error("an empty report is an error")
	}
	r.Unsupported("a.img", "a %s", "socket")
	r.Unsupported("a.img", "a socket") // the same again
	r.Damaged("b.img", "size %d", 7)
	r.Failed("c.img", fmt.Errorf("image c.img: at byte 4: %w", image.ErrMagic))
	err := r.Err()
	want := "a.img: a socket\nb.img: size 7\nc.img: at byte 4: not this kind of image"
	if err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	for _, is := range []error{errors.ErrUnsupported, ErrInvalid, image.ErrMagic} {
		if !errors.Is(err, is) {
			t.Errorf("it is not %v", is)
		}
	}
	r.Note("x")
	r.Note("x")
	if len(r.Notes()) != 1 {
		t.Errorf("%q", r.Notes())
	}
}

// TestReportIsBounded: hostile images have a problem in every entry.
func TestReportIsBounded(t *testing.T) {
	var r Report
	for i := range 10000 {
		r.Damaged("a.img", "problem %d", i)
	}
	refusal, ok := errors.AsType[*Refusal](r.Err())
	if !ok || len(refusal.Problems) != maxProblems || refusal.More != 10000-maxProblems {
		t.Fatalf("%d problems and %d more", len(refusal.Problems), refusal.More)
	}
	if !strings.HasSuffix(refusal.Error(), "\nand 9900 more problems") {
		t.Error(refusal.Error()[len(refusal.Error())-60:])
	}
}

// TestExtension: fields of ours are kept by whoever does not know them, and told from those of newer CRIUs.
func TestExtension(t *testing.T) {
	var e Extension
	e.SetNumber(1, 1<<63)
	e.SetBytes(2, []byte("name"))
	core := &entry.ThreadCore{Unknown: e.AppendTo(nil)}
	var again entry.ThreadCore
	if err := again.Decode(core.Append(nil)); err != nil {
		t.Fatal(err)
	}
	got, err := ParseExtension(again.Unknown)
	if err != nil {
		t.Fatal(err)
	}
	if n := got.Number(1); n == nil || *n != 1<<63 {
		t.Errorf("number %v", n)
	}
	if b, ok := got.Bytes(2); !ok || string(b) != "name" {
		t.Errorf("bytes %q, %v", b, ok)
	}
	if got.Number(2) != nil || got.Number(3) != nil {
		t.Error("a number that is not there")
	}
	var r Report
	r.Unknown("core-1.img", &again, again.Unknown)
	if len(r.Notes()) != 0 {
		t.Errorf("our own field is unknown: %q", r.Notes())
	}
	var empty Extension
	if b := empty.AppendTo(nil); b != nil {
		t.Errorf("an empty extension is % x", b)
	}
}

func FuzzExtension(f *testing.F) {
	var e Extension
	e.SetNumber(1, 300)
	e.SetBytes(2, []byte("x"))
	f.Add(e.AppendTo(nil))
	f.Add([]byte{0xaa, 0xfa, 0x0a, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseExtension(b)
		if err == nil {
			again, err := ParseExtension(e.AppendTo(nil))
			if err != nil || len(again.fields) != len(e.fields) {
				t.Errorf("%v: %d fields, then %d", err, len(e.fields), len(again.fields))
			}
		}
	})
}

// TestPipes: what a pipe is said to hold is only believed as far as it is there.
func TestPipes(t *testing.T) {
	d := image.NewMemDir(nil)
	w, err := image.Create(d, image.PipesData, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Put(&entry.PipeData{PipeID: 1, Bytes: 3})
	w.Write([]byte("abc"))
	w.Put(&entry.PipeData{PipeID: 2, Bytes: 1 << 29})
	w.Write([]byte("short"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var r Report
	pipes := readPipes(d, image.PipesData, &r)
	if len(pipes) != 1 || string(pipes[0].Data) != "abc" {
		t.Errorf("%+v", pipes)
	}
	if !errors.Is(r.Err(), image.ErrCorrupt) {
		t.Errorf("%v", r.Err())
	}
}
