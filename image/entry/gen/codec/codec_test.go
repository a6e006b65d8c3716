package codec

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestGenerated fails when somebody changed the table, or a generated file, and did not run go generate.
func TestGenerated(t *testing.T) {
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the table says; run go generate in image/entry", name)
		}
	}
	have, err := filepath.Glob(filepath.Join("..", "..", "*_gen*.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(have) != len(files) {
		t.Errorf("%d generated files, want %d: %v", len(have), len(files), have)
	}
}
