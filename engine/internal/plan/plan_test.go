package plan

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden plans anew")

// load copies a golden dump into memory and adds the pages that the repository does not have: zeros, as many as the pagemaps
// say.
func load(t testing.TB, path string) image.Dir {
	t.Helper()
	d, err := image.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := d.Names()
	if err != nil {
		t.Fatal(err)
	}
	m := image.NewMemDir(nil)
	for _, name := range names {
		typ, id, ok := image.ParseFile(name)
		if !ok || typ == image.Pages {
			continue
		}
		copyFile(t, m, d, name)
		if typ == image.Pagemap {
			addPages(t, m, d, id)
		}
	}
	return m
}

func copyFile(t testing.TB, to, from image.Dir, name string) {
	t.Helper()
	f, err := from.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, name, b)
}

func write(t testing.TB, d image.Dir, name string, b []byte) {
	t.Helper()
	f, err := d.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func addPages(t testing.TB, to, from image.Dir, id uint64) {
	t.Helper()
	p, err := image.OpenPagemap(from, image.Pagemap, id, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	size := uint64(0)
	for {
		run, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if run.Flags&image.PagePresent != 0 {
			size += run.Pages * 4096
		}
	}
	write(t, to, image.Pages.File(uint64(p.PagesID())), make([]byte, size))
}

type goldenDump struct {
	name, path string
	options    Options
}

var goldens = []goldenDump{
	{"tree", "../../../image/testdata/golden/tree", Options{Arch: snapshot.AMD64}},
	{"family", "testdata/criu/family", Options{}},
	{"state", "testdata/criu/state", Options{}},
	{"files", "testdata/criu/files", Options{Inherit: []string{"dev/zero"}}},
	{"gone", "testdata/criu/gone", Options{}},
	{"job", "testdata/criu/job", Options{ShellJob: true}},
}

// TestGolden holds the plans of CRIU's dumps against what they were, and makes each twice: a plan depends on the images alone.
func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			p, err := Make(t.Context(), load(t, g.path), g.options)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Make(t.Context(), load(t, g.path), g.options)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p, again); diff != "" {
				t.Errorf("two plans of the same images differ:\n%s", diff)
			}
			got := p.String()
			file := filepath.Join("testdata", g.name+".plan.txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("plan (-want +got); -update writes it anew:\n%s", diff)
			}
		})
	}
}

// refusal makes a plan that must not be made and returns the reasons.
func refusal(t *testing.T, d image.Dir, o Options) *images.Refusal {
	t.Helper()
	p, err := Make(t.Context(), d, o)
	if err == nil {
		t.Fatal("the plan was made")
	}
	if p != nil {
		t.Error("a plan beside an error")
	}
	refusal, ok := errors.AsType[*images.Refusal](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	return refusal
}

func TestUnsupportedFile(t *testing.T) {
	err := refusal(t, load(t, "../../../image/testdata/golden/zoo"), Options{})
	if got, want := err.Error(), "files.img: file 14: inotify: not restored by the built-in engine"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, images.ErrInvalid) {
		t.Error("the cause is not ErrUnsupported alone")
	}
}

func TestShellJob(t *testing.T) {
	err := refusal(t, load(t, "testdata/criu/job"), Options{}).Error()
	for _, want := range []string{"is not the leader of its session", "a terminal: restore it as a shell job"} {
		if !strings.Contains(err, want) {
			t.Errorf("%q is not in:\n%s", want, err)
		}
	}
	// A terminal that is handed in needs no shell; the session does all the same.
	err = refusal(t, load(t, "testdata/criu/job"), Options{Inherit: []string{"tty[8800:1a]"}}).Error()
	if strings.Contains(err, "terminal") {
		t.Errorf("a terminal that is handed in: %s", err)
	}
}

func TestArch(t *testing.T) {
	err := refusal(t, load(t, "testdata/criu/state"), Options{Arch: snapshot.ARM64}).Error()
	if want := "the processes are of amd64, this machine is arm64"; !strings.Contains(err, want) {
		t.Errorf("%q is not in %q", want, err)
	}
}

// TestMissing takes away one image after the other. Each is missed by name; nothing that the processes have goes unnoticed.
func TestMissing(t *testing.T) {
	for _, g := range goldens {
		if g.name == "family" {
			continue // has many images, and none that the others have not
		}
		t.Run(g.name, func(t *testing.T) {
			d := load(t, g.path)
			names, err := d.Names()
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				switch typ, _, _ := image.ParseFile(name); typ {
				case image.Seccomp, image.TimeNS, image.StatsDump:
					continue // a dump need not have them
				case image.RemapFilePath:
					continue // without it files have names, which are not there
				case image.PipesData, image.FIFOData:
					continue // pipes that are empty have no entry; the data of one that is not can only be missed by who wrote it
				}
				less := load(t, g.path)
				if err := less.Remove(name); err != nil {
					t.Fatal(err)
				}
				err := refusal(t, less, g.options)
				found := false
				for _, p := range err.Problems {
					found = found || p.Where == name || strings.Contains(p.What, name)
				}
				if !found {
					t.Errorf("%s is not missed: %v", name, err)
				}
			}
		})
	}
}

// edit changes an image of one entry.
func edit[T any, P interface {
	*T
	entry.Message
}](t *testing.T, d image.Dir, typ image.Type, id uint64, change func(*T)) {
	t.Helper()
	all, err := image.ReadAll[T, P](d, typ, id)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]entry.Message, len(all))
	for i := range all {
		change(&all[i])
		list[i] = P(&all[i])
	}
	if err := image.WriteAll(d, typ, id, list...); err != nil {
		t.Fatal(err)
	}
}

func rootOf(t *testing.T, d image.Dir) uint64 {
	t.Helper()
	tree, err := image.ReadPSTree(d)
	if err != nil {
		t.Fatal(err)
	}
	return uint64(tree[0].PID)
}
