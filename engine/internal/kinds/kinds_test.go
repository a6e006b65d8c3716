package kinds

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"

	"github.com/google/go-cmp/cmp"
)

// goldens are dumps by CRIU; the recipes are beside them.
var goldens = []string{
	"../../../image/testdata/golden/zoo",
	"../../../image/testdata/golden/tree",
	"../plan/testdata/criu/family",
	"../plan/testdata/criu/state",
	"../plan/testdata/criu/files",
	"../plan/testdata/criu/gone",
	"../plan/testdata/criu/job",
}

func open(t testing.TB, path string) image.Dir {
	t.Helper()
	d, err := image.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// decode decodes a golden and checks that nothing is wrong with it but what is in except.
func decode(t *testing.T, d image.Dir, except ...string) (*images.Set, *snapshot.Tree) {
	t.Helper()
	r := new(images.Report)
	set := images.Read(d, r)
	tree := Decode(set, r)
	if err := r.Err(); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			if !slices.ContainsFunc(except, func(e string) bool { return strings.Contains(line, e) }) {
				t.Error(line)
			}
		}
	}
	for _, note := range r.Notes() {
		t.Error(note)
	}
	return set, tree
}

// TestRoundTrip decodes what CRIU has written and encodes it again: the same files, byte for byte, but for differences that are
// listed here with their reasons.
func TestRoundTrip(t *testing.T) {
	for _, path := range goldens {
		t.Run(filepath.Base(path), func(t *testing.T) {
			d := open(t, path)
			set, tree := decode(t, d, "inotify")
			r := new(images.Report)
			again := Encode(tree, r)
			if err := r.Err(); err != nil && !strings.Contains(err.Error(), "a file of an unknown kind") {
				t.Error(err)
			}
			out := image.NewMemDir(nil)
			if err := again.Write(out); err != nil {
				t.Fatal(err)
			}
			dropInotify(set, again)
			if diff := cmp.Diff(set.Processes, again.Processes, threadsOfTheDead(set)); diff != "" {
				t.Errorf("processes (-CRIU +stasis):\n%s", diff)
			}
			if diff := cmp.Diff(set.Files, again.Files); diff != "" {
				t.Errorf("files (-CRIU +stasis):\n%s", diff)
			}
			if diff := cmp.Diff(set.FDInfo, again.FDInfo); diff != "" {
				t.Errorf("descriptors (-CRIU +stasis):\n%s", diff)
			}
			if diff := cmp.Diff(set.Ghosts, again.Ghosts); diff != "" {
				t.Errorf("files without names (-CRIU +stasis):\n%s", diff)
			}
			sameBytes(t, d, out)
		})
	}
}

// dropInotify takes out of two sets the files of a kind that is not supported: they cannot be encoded.
func dropInotify(sets ...*images.Set) {
	ids := make(map[uint32]bool)
	for _, f := range sets[0].Files {
		if f.Type == entry.FDTypeInotify {
			ids[f.ID] = true
		}
	}
	for _, s := range sets {
		s.Files = slices.DeleteFunc(slices.Clone(s.Files), func(f entry.File) bool { return ids[f.ID] })
		for id, slots := range s.FDInfo {
			s.FDInfo[id] = slices.DeleteFunc(slices.Clone(slots), func(f entry.FDInfo) bool { return ids[f.ID] })
		}
	}
}

// threadsOfTheDead ignores the thread list of the dead, which is a zombie's pid here and what memory happened to hold in CRIU.
func threadsOfTheDead(set *images.Set) cmp.Option {
	dead := make(map[uint32]bool)
	for _, p := range set.Processes {
		dead[p.Entry.PID] = p.Dead()
	}
	return cmp.FilterValues(func(a, b entry.PSTree) bool { return dead[a.PID] && dead[b.PID] },
		cmp.Transformer("withoutThreads", func(p entry.PSTree) [4]uint32 { return [4]uint32{p.PID, p.PPID, p.PGID, p.SID} }))
}

// notWritten are images that CRIU writes and this engine does not, and those that it writes in another form.
var notWritten = map[image.Type]string{
	image.Pagemap:   "pages are not this package's",
	image.Pages:     "pages are not this package's",
	image.GhostFile: "compared above: what is in them is the engine's",
	image.StatsDump: "statistics are the engine's",
	image.Seccomp:   "empty; CRIU restores without it",
	image.PSTree:    "compared above: the threads of the dead",
}

func sameBytes(t *testing.T, want, got image.Dir) {
	t.Helper()
	names, err := want.Names()
	if err != nil {
		t.Fatal(err)
	}
	same := 0
	for _, name := range names {
		typ, _, ok := image.ParseFile(name)
		if !ok {
			t.Errorf("%s: of no type", name)
		}
		zoo := (typ == image.Files || typ == image.FDInfo) && hasInotify(t, want)
		if notWritten[typ] != "" || zoo {
			continue
		}
		if a, b := content(t, want, name), content(t, got, name); !bytes.Equal(a, b) {
			t.Errorf("%s:\nCRIU   % x\nstasis % x", name, a, b)
		}
		same++
	}
	if same < 6 {
		t.Errorf("only %d images were compared", same)
	}
}

func hasInotify(t *testing.T, d image.Dir) bool {
	files, err := image.ReadAll[entry.File](d, image.Files, 0)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f entry.File) bool { return f.Type == entry.FDTypeInotify })
}

func content(t *testing.T, d image.Dir, name string) []byte {
	t.Helper()
	f, err := d.Open(name)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAgain decodes what was encoded: the same snapshot.
func TestAgain(t *testing.T) {
	for _, path := range goldens {
		if filepath.Base(path) == "zoo" {
			continue // has an inotify
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, tree := decode(t, open(t, path))
			r := new(images.Report)
			out := image.NewMemDir(nil)
			set := Encode(tree, r)
			if err := set.Write(out); err != nil {
				t.Fatal(err)
			}
			for _, g := range set.Ghosts {
				if err := image.WriteAll(out, image.GhostFile, uint64(g.ID), &g.Entry); err != nil {
					t.Fatal(err)
				}
			}
			_, again := decode(t, out)
			if diff := cmp.Diff(tree, again); diff != "" {
				t.Errorf("-first +second:\n%s", diff)
			}
		})
	}
}

// TestBriefly: processes that are encoded, written and forgotten one by one give the same images, and have the handlers and limits of those
// before them where they are the same.
func TestBriefly(t *testing.T) {
	for _, path := range goldens {
		if filepath.Base(path) == "zoo" {
			continue // has an inotify
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			d := open(t, path)
			_, tree := decode(t, d)
			out, e := image.NewMemDir(nil), NewEncoder(tree, new(images.Report))
			e.Briefly()
			if err := e.Set.WriteTree(out); err != nil {
				t.Fatal(err)
			}
			handlers := make(map[*snapshot.Actions]*entry.SA)
			for i, task := range tree.Tasks {
				e.Process(i)
				if h := e.handlers[task.Handlers]; h != nil && task.State != snapshot.Dead {
					first := &e.Set.Processes[i].TC().Sigactions[0]
					if was := handlers[h.Actions]; was != nil && was != first {
						t.Errorf("process %d has entries of its own for handlers that another has", task.PID.Num())
					}
					handlers[h.Actions] = first
				}
				if err := e.Set.WriteProcess(out, i); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Set.WriteInventory(out); err != nil {
				t.Fatal(err)
			}
			sameBytes(t, d, out)
		})
	}
}

// TestTable holds the table against the packages there are.
func TestTable(t *testing.T) {
	list, err := os.ReadDir("../state")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range list {
		if e.IsDir() {
			want = append(want, e.Name())
		}
	}
	var got []string
	for _, k := range All() {
		got = append(got, k.Name)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the table has %q, the packages are %q", got, want)
	}
}
