package image

import (
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
