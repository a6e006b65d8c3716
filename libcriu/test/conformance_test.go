package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/internal/testkit"
)

// cClient performs the operations of the conformance suite by means of a C program that uses the library.
type cClient struct {
	t    testing.TB
	prog string
	lib  string
	peer string
	path string // of the criu that the library starts
}

// kinds are the library's results, as the errors that package criu has for them.
func kinds() map[int]error {
	return map[int]error{
		-int(syscall.EBADE): criu.ErrFailed, -int(syscall.ECONNREFUSED): criu.ErrConnect, -int(syscall.ECOMM): criu.ErrTransport,
		-int(syscall.EINVAL): criu.ErrUnsupported, -int(syscall.EBADMSG): criu.ErrProtocol,
	}
}

type answer struct {
	ret      int
	features criu.Features
}

func (c *cClient) call(ctx context.Context, op string, images *os.File, args ...string) (answer, error) {
	cmd := exec.CommandContext(ctx, c.prog, append([]string{c.peer, op}, args...)...)
	cmd.Env = append(os.Environ(), libraryPath(c.lib))
	if c.path != "" {
		cmd.Env = append(cmd.Env, "PATH="+c.path+":"+os.Getenv("PATH"))
	}
	for _, arg := range args {
		// A C program opens the directory itself, and so it is that program which tells that there is none.
		if dir, ok := strings.CutPrefix(arg, "dir="); ok && images == nil {
			f, err := os.Open(dir)
			if err != nil {
				return answer{}, &criu.Error{Op: op, Kind: criu.ErrOptions, Resource: dir, Err: err}
			}
			f.Close()
		}
	}
	if images != nil {
		cmd.ExtraFiles = []*os.File{images}
		cmd.Args = append(cmd.Args, "dirfd=3")
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Run(); err != nil {
		return answer{}, fmt.Errorf("the C program failed: %w", err)
	}
	lines := strings.SplitN(stdout.String(), "\n", 5)
	// CRIU may have written to our standard output; what is ours are the last lines.
	if all := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n"); len(all) >= 4 {
		lines = all[len(all)-4:]
	}
	var a answer
	var errno int
	var f [4]int
	if _, err := fmt.Sscan(lines[0], &a.ret, &errno); err != nil {
		return a, fmt.Errorf("the C program said %q: %w", stdout.String(), err)
	}
	if _, err := fmt.Sscan(lines[1], &f[0], &f[1], &f[2], &f[3]); err != nil {
		return a, fmt.Errorf("the C program said %q: %w", stdout.String(), err)
	}
	a.features = criu.Features{MemTrack: f[0] != 0, LazyPages: f[1] != 0, PIDFDStore: f[2] != 0, MemCompression: f[3] != 0}
	if a.ret < 0 {
		return a, &criu.Error{Op: op, Kind: kinds()[a.ret], Errno: syscall.Errno(errno), Message: lines[2]}
	}
	return a, nil
}

func (c *cClient) Check(ctx context.Context, _ criu.CheckOptions) error {
	_, err := c.call(ctx, "check", nil)
	return err
}

func (c *cClient) Version(ctx context.Context) (criu.Version, error) {
	a, err := c.call(ctx, "version", nil)
	return criu.Version{Major: a.ret / 10000, Minor: a.ret / 100 % 100, Sublevel: a.ret % 100}, err
}

func (c *cClient) Features(ctx context.Context) (criu.Features, error) {
	a, err := c.call(ctx, "features", nil)
	return a.features, err
}

func (c *cClient) Dump(ctx context.Context, o criu.DumpOptions) (criu.DumpResult, error) {
	args := []string{fmt.Sprintf("pid=%d", o.PID), fmt.Sprintf("log_level=%d", o.LogLevel)}
	if o.LeaveRunning {
		args = append(args, "leave_running=1")
	}
	a, err := c.call(ctx, "dump", o.ImagesDirFile, append(args, images(o.ImagesDir, o.LogFile)...)...)
	return criu.DumpResult{Restored: a.ret == 1}, err
}

func (c *cClient) PreDump(ctx context.Context, o criu.PreDumpOptions) error {
	_, err := c.call(ctx, "predump", o.ImagesDirFile, append(images(o.ImagesDir, o.LogFile), fmt.Sprintf("pid=%d", o.PID))...)
	return err
}

func (c *cClient) Restore(ctx context.Context, o criu.RestoreOptions) (criu.RestoreResult, error) {
	a, err := c.call(ctx, "restore", o.ImagesDirFile, images(o.ImagesDir, o.LogFile)...)
	return criu.RestoreResult{PID: a.ret}, err
}

func images(dir, log string) []string {
	var args []string
	if dir != "" {
		args = append(args, "dir="+dir)
	}
	if log != "" {
		args = append(args, "log_file="+log)
	}
	return args
}

// TestConformance runs the suite that every client and transport has to pass through the C library. Notifications and
// cancellation are for C programs to arrange; other tests show them.
func TestConformance(t *testing.T) {
	testkit.Need(t, testkit.NoRaceDetector)
	lib, prog := library(t), program(t, "conform.c")
	criutest.Run(t, criutest.Target{Scripted: func(t testing.TB, p *criutest.Peer) criutest.Client {
		return &cClient{t: t, prog: prog, lib: lib, peer: "sk:" + p.Service().Path}
	}})
	testkit.Need(t, testkit.Root, testkit.CRIU)
	criutest.Run(t, criutest.Target{Real: func(t testing.TB) criutest.Client {
		return &cClient{t: t, prog: prog, lib: lib, peer: "bin", path: filepath.Dir(testkit.CRIUPath(t))}
	}})
}
