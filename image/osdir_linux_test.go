package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenDirFile(t *testing.T) {
	top := t.TempDir()
	for _, name := range []string{"1", "2"} {
		mustOS(t, os.Mkdir(filepath.Join(top, name), 0o755), os.WriteFile(filepath.Join(top, name, "who"), []byte(name), 0o600))
	}
	f, err := os.Open(filepath.Join(top, "2"))
	mustOS(t, err)
	defer f.Close()
	d, err := OpenDirFile(f)
	mustOS(t, err)
	defer d.Close()
	mustOS(t, d.SetParent("../1"))
	p, err := d.Parent()
	mustOS(t, err)
	defer p.Close()
	if got := get(t, d, "who") + get(t, p, "who"); got != "21" {
		t.Errorf("%q", got)
	}
	file, err := d.Open("who")
	mustOS(t, err)
	defer file.Close()
	if _, ok := FD(file); !ok {
		t.Error("an image on disk has no descriptor")
	}
}

// TestOpenOfLinks: a name that is a link to another of the directory opens that; files that are made are nobody else's to read.
func TestOpenOfLinks(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	put(t, d, "a", "text")
	mustOS(t, os.Symlink("a", filepath.Join(dir, "link")), os.Symlink("link", filepath.Join(dir, "round")))
	for _, name := range []string{"a", "link", "round"} {
		if got := get(t, d, name); got != "text" {
			t.Errorf("%s: %q", name, got)
		}
	}
	mustOS(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	for _, name := range []string{"loop", "missing"} {
		f, err := d.Open(name)
		if err == nil {
			f.Close()
		}
		var in *fs.PathError
		if !errors.As(err, &in) || errors.Is(err, fs.ErrNotExist) != (name == "missing") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "a")); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}
