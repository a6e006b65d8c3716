package plan

import (
	"errors"
	"fmt"
	"testing"

	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"

	"github.com/google/go-cmp/cmp"
)

// pagesOf makes a pagemap and its pages: for each page a letter at an address, "." for none.
func pagesOf(t *testing.T, d image.Dir, pid int, start uint64, pages string) {
	t.Helper()
	entries := []entry.Message{&entry.PagemapHead{PagesID: uint32(pid)}}
	var content []byte
	for i := range pages {
		if pages[i] == '.' {
			continue
		}
		entries = append(entries, &entry.PagemapEntry{Vaddr: start + uint64(i)*4096, NrPages: new(uint64(1)), Flags: new(uint32(image.PagePresent))})
		page := make([]byte, 4096)
		page[4095] = pages[i]
		content = append(content, page...)
	}
	if err := image.WriteAll(d, image.Pagemap, uint64(pid), entries...); err != nil {
		t.Fatal(err)
	}
	write(t, d, image.Pages.File(uint64(pid)), content)
}

func TestWalk(t *testing.T) {
	const start = 0x10000
	for _, c := range []struct {
		name, parent, child string
		inherit             []snapshot.Range // in pages from start
		want                []string
	}{
		{"nothing in common", "abc", "a.c", nil, []string{"write 0-1 from 0", "write 2-3 from 1"}},
		{"all the same", "abc", "abc", []snapshot.Range{{Start: 0, End: 3}}, []string{"keep 0-3"}},
		{"one differs", "abcd", "abXd", []snapshot.Range{{Start: 0, End: 4}}, []string{"keep 0-2", "write 2-3 from 2", "keep 3-4"}},
		{"given back", "abcd", "a..d", []snapshot.Range{{Start: 0, End: 4}}, []string{"keep 0-1", "drop 1-3", "keep 3-4"}},
		{"new", "a..d", "abcd", []snapshot.Range{{Start: 0, End: 4}}, []string{"keep 0-1", "write 1-3 from 1", "keep 3-4"}},
		{"mapped anew beside it", "abcd", "abcd", []snapshot.Range{{Start: 1, End: 2}, {Start: 3, End: 4}},
			[]string{"write 0-1 from 0", "keep 1-2", "write 2-3 from 2", "keep 3-4"}},
		{"end of mine", "abcd", "ab", []snapshot.Range{{Start: 0, End: 10}}, []string{"keep 0-2", "drop 2-4"}},
		{"end of theirs", "ab", "abcd", []snapshot.Range{{Start: 0, End: 10}}, []string{"keep 0-2", "write 2-4 from 2"}},
		{"more than are read at a time", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", []snapshot.Range{{Start: 0, End: 41}},
			[]string{"keep 0-40", "write 40-41 from 40"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := image.NewMemDir(nil)
			pagesOf(t, d, 7, start, c.parent)
			pagesOf(t, d, 8, start, c.child)
			p := &Plan{Tree: &snapshot.Tree{PageSize: 4096}}
			m := &Memory{PID: 8, From: 7}
			for _, r := range c.inherit {
				m.Inherit = append(m.Inherit, snapshot.Range{Start: start + r.Start*4096, End: start + r.End*4096})
			}
			var got []string
			err := p.Walk(d, m, new(WalkRoom), func(r Run) error {
				text := fmt.Sprintf("%s %d-%d", map[Fate]string{Write: "write", Keep: "keep", Drop: "drop"}[r.Fate], (r.Start-start)/4096, (r.End-start)/4096)
				if r.Fate == Write {
					text += fmt.Sprintf(" from %d", r.Offset/4096)
				}
				got = append(got, text)
				return nil
			}, same)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestWalkGolden walks over all memory of CRIU's dumps: every page of the images is written or kept, none twice.
func TestWalkGolden(t *testing.T) {
	for _, g := range goldens {
		d := load(t, g.path)
		p, err := Make(t.Context(), d, g.options)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Memory {
			m := &p.Memory[i]
			pages, kept, end := uint64(0), uint64(0), uint64(0)
			err := p.Walk(d, m, new(WalkRoom), func(r Run) error {
				if r.Start < end {
					t.Errorf("%s: %d: run at %#x begins before %#x", g.name, m.PID, r.Start, end)
				}
				end = r.End
				if r.Fate != Drop {
					pages += r.Len() / 4096
				}
				if r.Fate == Keep {
					kept += r.Len() / 4096
				}
				return nil
			}, same)
			if err != nil {
				t.Fatal(err)
			}
			// The pages of the tests are all zeros, so that all that can be the same is.
			if pages != m.Pages || kept != m.Shareable {
				t.Errorf("%s: %d: %d pages of %d, %d kept of %d", g.name, m.PID, pages, m.Pages, kept, m.Shareable)
			}
		}
	}
}

func same(err error) error { return err }

// What goes wrong comes to done, and what done says comes back.
func TestWalkFails(t *testing.T) {
	d := image.NewMemDir(nil)
	pagesOf(t, d, 7, 0x10000, "abc")
	p := &Plan{Tree: &snapshot.Tree{PageSize: 4096}}
	broken, wrapped := errors.New("broken"), errors.New("wrapped")
	for _, pid := range []int{7, 8} {
		var told error
		err := p.Walk(d, &Memory{PID: pid}, new(WalkRoom), func(Run) error { return broken }, func(err error) error {
			told = err
			return errors.Join(wrapped, err)
		})
		if told == nil || errors.Is(told, broken) != (pid == 7) || !errors.Is(err, wrapped) || !errors.Is(err, told) {
			t.Errorf("process %d: done is told %v, Walk returns %v", pid, told, err)
		}
	}
}
