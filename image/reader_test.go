package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"testing"

	"stasis.example/image/entry"

	"github.com/google/go-cmp/cmp"
)

// words is a file of little-endian 32-bit words.
func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func TestHeads(t *testing.T) {
	core, inv, stats := types[Core].magic, types[Inventory].magic, types[StatsDump].magic
	for _, c := range []struct {
		name string
		typ  Type
		in   []byte
		want error // nil: io.EOF from the first Next
	}{
		{"common", Core, words(magicCommon, core), nil},
		{"single", Inventory, words(inv), nil},
		{"service", StatsDump, words(magicService, stats), nil},
		{"empty", Core, nil, io.ErrUnexpectedEOF},
		{"cut off", Core, words(magicCommon, core)[:7], io.ErrUnexpectedEOF},
		{"another type", Core, words(magicCommon, types[MM].magic), ErrMagic},
		{"format 1.0", Core, words(core), ErrMagic},
		{"common for service", StatsDump, words(magicCommon, stats), ErrMagic},
		{"pages", Pages, nil, ErrMagic},
	} {
		r, err := NewReader(bytes.NewReader(c.in), c.typ, Limits{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if c.want == nil && err == nil {
			if err := r.Next(new(entry.Core)); !errors.Is(err, io.EOF) {
				t.Errorf("%s: Next: %v, want EOF", c.name, err)
			}
		}
	}
}

func TestWriteRead(t *testing.T) {
	d := NewMemDir(nil)
	want := []entry.PSTree{{PID: 1, PGID: 1, SID: 1, Threads: []uint32{1, 2, 3}}, {PID: 4, PPID: 1}}
	if err := WriteAll(d, PSTree, 0, &want[0], &want[1]); err != nil {
		t.Fatal(err)
	}
	got, err := ReadAll[entry.PSTree](d, PSTree, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := ReadOne(d, PSTree, 0, new(entry.PSTree)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("ReadOne of two entries: %v", err)
	}
	if err := WriteAll(d, FS, 4); err != nil {
		t.Fatal(err)
	}
	if err := ReadOne(d, FS, 4, new(entry.FS)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("ReadOne of no entry: %v", err)
	}
	if _, err := Open(d, Core, 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of what is not there: %v", err)
	}
}

func TestPayload(t *testing.T) {
	d := NewMemDir(nil)
	w, err := Create(d, PipesData, 0)
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("x"), flushAt+5)
	for i, data := range [][]byte{[]byte("hello"), big, nil, []byte("end")} {
		if err := w.Put(&entry.PipeData{PipeID: uint32(i), Bytes: uint32(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(d, PipesData, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := 0; ; i++ {
		var e entry.PipeData
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := r.Payload(int64(e.Bytes))
		if i == 1 {
			p = io.LimitReader(p, 3) // Next must skip the rest
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	if diff := cmp.Diff([]string{"hello", "xxx", "", "end"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCutOff(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file, PipesData)
	if err := errors.Join(w.Put(&entry.PipeData{PipeID: 1, Bytes: 5}), second(w.Write([]byte("hello"))), w.Close()); err != nil {
		t.Fatal(err)
	}
	whole := file.Bytes()
	for n := 8; n < len(whole); n++ {
		err := readPipes(whole[:n])
		if n == 8 {
			if err != nil {
				t.Errorf("cut at the head: %v", err)
			}
			continue
		}
		if !errors.Is(err, ErrCorrupt) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
}

func second(_ int, err error) error { return err }

func readPipes(b []byte) error {
	r, err := NewReader(bytes.NewReader(b), PipesData, Limits{})
	for err == nil {
		var e entry.PipeData
		if err = r.Next(&e); err == nil {
			r.Payload(int64(e.Bytes))
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestLimits(t *testing.T) {
	huge := append(words(magicCommon, types[Core].magic, 1<<31), "little"...)
	read := func(l Limits, b []byte) error {
		r, err := NewReader(bytes.NewReader(b), Core, l)
		for err == nil {
			err = r.Next(new(entry.PIDNS)) // takes an empty message
		}
		return err
	}
	if err := read(Limits{}, huge); !errors.Is(err, ErrLimit) {
		t.Errorf("entry of 2 GiB: %v", err)
	}
	// Under the limit, the length is still only a claim: nothing of that size may be allocated.
	r, err := NewReader(bytes.NewReader(huge), Core, Limits{EntryBytes: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Next(new(entry.PIDNS)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("entry of 2 GiB that is not there: %v", err)
	}
	if cap(r.buf) > 1<<20 {
		t.Errorf("%d bytes of buffer for 6 bytes of input", cap(r.buf))
	}
	three := words(magicCommon, types[Core].magic, 0, 0, 0)
	if err := read(Limits{Entries: 3}, three); !errors.Is(err, io.EOF) {
		t.Errorf("3 entries of at most 3: %v", err)
	}
	if err := read(Limits{Entries: 2}, three); !errors.Is(err, ErrLimit) {
		t.Errorf("3 entries of at most 2: %v", err)
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	d := NewMemDir(nil)
	f, err := d.Create("core-7.img")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(words(magicCommon, types[Core].magic, 2), 0x08, 0x80)); err != nil {
		t.Fatal(err)
	}
	err = ReadOne(d, Core, 7, new(entry.Core))
	if !errors.Is(err, entry.ErrSyntax) || !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
	for _, part := range []string{"core-7.img", "entry 0", "core_entry.mtype"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

// failing is a NewFile whose disk is full.
type failing struct{ Dir }

var errFull = errors.New("disk is full")

func (d failing) Create(name string) (NewFile, error) {
	f, err := d.Dir.Create(name)
	return fullFile{f}, err
}

type fullFile struct{ NewFile }

func (fullFile) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrorStays(t *testing.T) {
	w, err := Create(failing{NewMemDir(nil)}, PipesData, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, flushAt)); !errors.Is(err, errFull) {
		t.Errorf("Write: %v", err)
	}
	if err := w.Put(&entry.PipeData{}); !errors.Is(err, errFull) {
		t.Errorf("Put after it: %v", err)
	}
	if err := w.Close(); !errors.Is(err, errFull) || !strings.Contains(err.Error(), "pipes-data.img") {
		t.Errorf("Close: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	for typ := Inventory; typ < endOfTypes; typ++ {
		if types[typ].framing == raw {
			continue
		}
		var b bytes.Buffer
		w := NewWriter(&b, typ)
		if err := errors.Join(w.Put(&entry.PipeData{PipeID: 1, Bytes: 3}), second(w.Write([]byte("abc"))), w.Close()); err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(typ), b.Bytes())
	}
	f.Fuzz(func(t *testing.T, typ uint8, b []byte) {
		if typ == 0 || Type(typ) >= endOfTypes {
			return
		}
		r, err := NewReader(bytes.NewReader(b), Type(typ), Limits{EntryBytes: 1 << 20, Entries: 1000})
		total := 0
		for err == nil {
			var e entry.PipeData
			if err = r.Next(&e); err != nil {
				break
			}
			got, rerr := io.ReadAll(r.Payload(int64(e.Bytes)))
			if rerr == nil && len(got) != int(e.Bytes) {
				t.Fatalf("payload of %d bytes, want %d, no error", len(got), e.Bytes)
			}
			if total += len(got) + 4; total > len(b) {
				t.Fatalf("%d bytes out of %d", total, len(b))
			}
		}
	})
}

// view is a directory that leads to another.
type view struct{ Dir }

func (v view) Unwrap() Dir { return v.Dir }

// TestViewsShareRooms: a view of a directory reads with the directory's buffers, and a view of a view.
func TestViewsShareRooms(t *testing.T) {
	d := openDir(t, t.TempDir())
	if rooms := roomsOf(d); rooms == nil || roomsOf(view{d}) != rooms || roomsOf(view{view{d}}) != rooms {
		t.Errorf("%p, %p, %p", rooms, roomsOf(view{d}), roomsOf(view{view{d}}))
	}
	if roomsOf(struct{ Dir }{d}) != nil {
		t.Error("who does not say what it is of has buffers of its own")
	}
}

// TestReadersGiveBackRooms: to read many images takes no more memory than to read one, but for what is in them.
func TestReadersGiveBackRooms(t *testing.T) {
	d := openDir(t, t.TempDir())
	if err := WriteAll(d, FS, 1, &entry.FS{CwdID: 1, RootID: 2}); err != nil {
		t.Fatal(err)
	}
	read := func() {
		var m entry.FS
		if err := ReadOne(view{d}, FS, 1, &m); err != nil {
			t.Fatal(err)
		}
	}
	read()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const times = 1000
	for range times {
		read()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / times; n > roomSize/2 { // with the race detector a pool loses some
		t.Errorf("%d bytes for each", n)
	}
}
