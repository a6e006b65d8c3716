package proc

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// FuzzParsers gives any input to any parser: it returns, and an error has something to say.
func FuzzParsers(f *testing.F) {
	names := slices.Sorted(maps.Keys(parsers))
	proc, pid := fixture(f, "linux-6.18.txtar")
	p := proc.Process(pid)
	for i, name := range names {
		files := map[string][]string{"idmap": {"uid_map"}, "auxv32": {"auxv"}, "children": {fmt.Sprintf("task/%d/children", pid)}, "fdinfo": {"fdinfo/4", "fdinfo/6", "fdinfo/7", "fdinfo/9", "fdinfo/10", "fdinfo/11"}}[name]
		if files == nil {
			files = []string{name}
		}
		for _, file := range files {
			if name == "locks" {
				file = "../locks"
			}
			b, err := fs.ReadFile(proc.root, strings.TrimPrefix(p.file(file), fmt.Sprintf("%d/../", pid)))
			switch name {
			case "ns":
				b, err = []byte("pid:[4026531836]"), nil
			case "timens":
				b, err = []byte("monotonic           0         0\nboottime           -1 372264604\n"), nil
			}
			if err != nil {
				f.Fatal(err)
			}
			if len(b) > 4096 {
				b = b[:bytes.LastIndexByte(b[:4096], '\n')+1]
			}
			f.Add(uint8(i), b)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		if err := parsers[names[int(which)%len(names)]](bytes.NewReader(b)); err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}

// FuzzMaps: what was read can be written in the kernel's form and reads as the same.
func FuzzMaps(f *testing.F) {
	f.Add([]byte(goodMap))
	f.Add([]byte("7f0-7f1 rw-s 00000000 00:01 10760                      /memfd:a memfd (deleted)\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := ParseMaps(bytes.NewReader(b))
		if err != nil {
			return
		}
		if n := bytes.Count(b, []byte("\n")); n != len(all) {
			t.Fatalf("%d mappings of %d lines", len(all), n)
		}
		var out strings.Builder
		for _, m := range all {
			fmt.Fprintf(&out, "%08x-%08x %v %08x %02x:%02x %d %s\n", m.Start, m.End, m.Perm, m.Offset, m.Major, m.Minor, m.Inode, strings.ReplaceAll(m.Path, "\n", `\012`))
		}
		again, err := ParseMaps(strings.NewReader(out.String()))
		if err != nil || !reflect.DeepEqual(again, all) {
			t.Fatalf("%+v became %+v, %v", all, again, err)
		}
	})
}
