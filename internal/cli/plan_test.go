package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A plan that is interrupted says so, and nothing of the images.
func TestPlanIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	images := goldenImages(t, dir)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{unix.SIGINT})
	errs, err := os.Create(filepath.Join(dir, "errors"))
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	status := runIn(ctx, t, []string{"CRIU_CONFIG_FILE="}, nil, errs, errs, "stasis", "plan", filepath.Join(images, "family"))
	text, err := os.ReadFile(errs.Name())
	if err != nil {
		t.Fatal(err)
	}
	if status != 128+int(unix.SIGINT) || !strings.Contains(string(text), "interrupted by SIGINT") || strings.Contains(string(text), "cannot be restored") {
		t.Errorf("status %d: %s", status, text)
	}
}
