package image

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
)

func put(t *testing.T, d Dir, name, text string) {
	t.Helper()
	f, err := d.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, d Dir, name string) string {
	t.Helper()
	f, err := d.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func openDir(t *testing.T, path string) Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDirs(t *testing.T) {
	for name, d := range map[string]Dir{"disk": openDir(t, t.TempDir()), "memory": NewMemDir(nil)} {
		t.Run(name, func(t *testing.T) {
			put(t, d, "b", "two")
			put(t, d, "a", "a longer one")
			put(t, d, "a", "one") // replaces
			if got := get(t, d, "a") + get(t, d, "b"); got != "onetwo" {
				t.Errorf("%q", got)
			}
			names, err := d.Names()
			if err != nil || !slices.Equal(names, []string{"a", "b"}) {
				t.Errorf("Names() = %q, %v", names, err)
			}
			if err := d.Remove("a"); err != nil {
				t.Error(err)
			}
			if _, err := d.Open("a"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("open after remove: %v", err)
			}
			if err := d.Remove("a"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("remove after remove: %v", err)
			}
			if _, err := d.Parent(); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Parent(): %v", err)
			}
			for _, bad := range []string{"", ".", "..", "../a", "a/b", "/etc/passwd", `a\b`, "a\x00b"} {
				if _, err := d.Open(bad); !errors.Is(err, fs.ErrInvalid) {
					t.Errorf("Open(%q): %v", bad, err)
				}
				if f, err := d.Create(bad); !errors.Is(err, fs.ErrInvalid) || f != nil {
					t.Errorf("Create(%q): %v, %v", bad, f, err)
				}
				if err := d.Remove(bad); !errors.Is(err, fs.ErrInvalid) {
					t.Errorf("Remove(%q): %v", bad, err)
				}
			}
			f, err := d.Create("at")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("xy"), 3); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if got := get(t, d, "at"); got != "\x00\x00\x00xy" {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestDirNeverLeaves: links in a hostile image directory lead nowhere.
func TestDirNeverLeaves(t *testing.T) {
	top := t.TempDir()
	img := filepath.Join(top, "img")
	secret := filepath.Join(top, "secret")
	mustOS(t, os.Mkdir(img, 0o755), os.WriteFile(secret, []byte("secret"), 0o600))
	mustOS(t, os.Symlink("../secret", filepath.Join(img, "rel")), os.Symlink(secret, filepath.Join(img, "abs")), os.Link(secret, filepath.Join(img, "hard")))
	mustOS(t, os.Mkdir(filepath.Join(img, "dir"), 0o755))
	d := openDir(t, img)
	for _, name := range []string{"rel", "abs", "dir"} {
		if f, err := d.Open(name); err == nil {
			f.Close()
			t.Errorf("%s opened", name)
		}
	}
	for _, name := range []string{"rel", "abs", "hard"} {
		put(t, d, name, "overwritten")
		if got := get(t, d, name); got != "overwritten" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Errorf("the file outside is now %q, %v", b, err)
	}
}

func mustOS(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestParents(t *testing.T) {
	top := t.TempDir()
	in := filepath.Join(top, "in")
	for _, name := range []string{"1", "2", "3"} {
		mustOS(t, os.MkdirAll(filepath.Join(in, name), 0o755), os.WriteFile(filepath.Join(in, name, "who"), []byte(name), 0o600))
	}
	outside := filepath.Join(top, "outside")
	mustOS(t, os.Mkdir(outside, 0o755), os.Symlink("../outside", filepath.Join(in, "trick")))

	three := openDir(t, filepath.Join(in, "3"))
	mustOS(t, three.SetParent("../2"), openDir(t, filepath.Join(in, "2")).SetParent(filepath.Join(in, "1")))
	two, err := three.Parent()
	mustOS(t, err)
	defer two.Close()
	one, err := two.Parent() // by an absolute link
	mustOS(t, err)
	defer one.Close()
	if got := get(t, two, "who") + get(t, one, "who"); got != "21" {
		t.Errorf("parents are %q", got)
	}

	for _, target := range []string{"../../outside", outside, "../trick", "/", ".."} {
		mustOS(t, one.SetParent(target))
		p, err := one.Parent()
		if target == ".." { // the directory above: inside the base, if odd
			mustOS(t, err)
			p.Close()
			continue
		}
		if err == nil {
			p.Close()
			t.Errorf("parent %s: no error", target)
		}
	}

	// A wider base allows what is in it.
	base, err := os.OpenRoot(top)
	mustOS(t, err)
	defer base.Close()
	wide, err := OpenDirIn(base, "in/1")
	mustOS(t, err)
	defer wide.Close()
	mustOS(t, wide.SetParent("../../outside"))
	p, err := wide.Parent()
	mustOS(t, err)
	p.Close()
}

func TestParentIsDirectory(t *testing.T) {
	img := t.TempDir()
	mustOS(t, os.Mkdir(filepath.Join(img, ParentLink), 0o755), os.WriteFile(filepath.Join(img, ParentLink, "who"), []byte("x"), 0o600))
	for name, d := range map[string]Dir{"disk": openDir(t, img), "fs": NewFSDir(os.DirFS(img))} {
		p, err := d.Parent()
		mustOS(t, err)
		if got := get(t, p, "who"); got != "x" {
			t.Errorf("%s: %q", name, got)
		}
		p.Close()
	}
}

func TestFSDir(t *testing.T) {
	d := NewFSDir(fstest.MapFS{"a": {Data: []byte("text")}, "parent/a": {Data: []byte("older")}})
	p, err := d.Parent()
	mustOS(t, err)
	if got := get(t, d, "a") + get(t, p, "a"); got != "textolder" {
		t.Errorf("%q", got)
	}
	if _, err := d.Create("a"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Create: %v", err)
	}
	if err := d.Remove("a"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Remove: %v", err)
	}
	if _, err := d.Open("parent"); err == nil {
		t.Error("a directory was opened as an image")
	}
	f, err := d.Open("a")
	mustOS(t, err)
	if _, ok := FD(f); ok {
		t.Error("a file in memory has a descriptor")
	}
}
