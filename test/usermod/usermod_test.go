package usermod

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/image"
)

// client returns a client of the CRIU in the checkout's .tools, or of the one in PATH.
func client(t *testing.T) *criu.Client {
	t.Helper()
	path, err := filepath.Abs("../../.tools/criu/bin/criu")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("criu"); err != nil {
			t.Skip("needs CRIU: make tools")
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	return criu.New(&criu.Swrk{Path: path})
}

// A process is dumped, its images are looked at, and it is brought back as a child with the pid that it had.
func TestDumpLookRestore(t *testing.T) {
	c, ctx := client(t), context.Background()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
	})
	dir := t.TempDir()
	if _, err := c.Dump(ctx, criu.DumpOptions{PID: cmd.Process.Pid, ImagesDir: dir}); err != nil {
		t.Fatal(err)
	}
	if state, err := cmd.Process.Wait(); err != nil || state.Success() {
		t.Fatalf("the process that was dumped: %v, %v", state, err)
	}

	images, err := image.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	tree, err := image.ReadPSTree(images)
	if err != nil || len(tree) != 1 || tree[0].PID != uint32(cmd.Process.Pid) {
		t.Errorf("the tree in the images is %+v, %v", tree, err)
	}

	process, err := c.RestoreChild(ctx, criu.RestoreOptions{ImagesDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer process.Release()
	if process.PID != cmd.Process.Pid {
		t.Errorf("restored as pid %d, not %d", process.PID, cmd.Process.Pid)
	}
	if err := process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	state, err := process.Wait(ctx)
	if err != nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the restored process ended with %v, %v", state, err)
	}
}

// A failure can be told from others by what the packages export.
func TestErrors(t *testing.T) {
	c := client(t)
	_, err := c.Dump(context.Background(), criu.DumpOptions{PID: 1 << 30, ImagesDir: t.TempDir()})
	if failed, ok := errors.AsType[*criu.Error](err); !ok || !errors.Is(err, criu.ErrNoProcess) {
		t.Errorf("dump of a pid that there is not: %v (%+v)", err, failed)
	}
}
