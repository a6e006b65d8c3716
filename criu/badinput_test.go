package criu_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/internal/testkit"
)

// counts checks that a victim that was not dumped is none the worse.
func counts(t *testing.T, v *testkit.Victim) {
	t.Helper()
	if before, after := v.Ask(), v.Ask(); before == after {
		t.Error("the victim does not count")
	}
}

// wantText checks that a message names what it should.
func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}

func TestBadPID(t *testing.T) {
	c := criu.New(criutest.NewPeer(t).Transport())
	for _, pid := range []int{0, -1, 1 << 40} {
		_, err := c.Dump(t.Context(), criu.DumpOptions{PID: pid, ImagesDir: t.TempDir()})
		if !errors.Is(err, criu.ErrOptions) || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("pid %d: %v", pid, err)
		}
		wantText(t, err, "PID")
	}
}

// TestBadOptionsAllAtOnce: every complaint is there, and nothing was asked.
func TestBadOptionsAllAtOnce(t *testing.T) {
	peer := criutest.NewPeer(t)
	_, err := criu.New(peer.Transport()).Dump(t.Context(), criu.DumpOptions{
		LeaveRunning: true, LeaveStopped: true, LazyPages: true, LogFile: "a/b", External: []string{"", "x\x00y"},
		NetworkLock: "magic", CPUCap: criu.CPUCapNone | criu.CPUCapFPU, Timeout: -time.Second, GhostLimit: 1 << 40,
		InheritFiles: []criu.InheritFile{{}}, ImagesDir: "/nonexistent", PageServer: nil,
	})
	if !errors.Is(err, criu.ErrOptions) {
		t.Fatal(err)
	}
	wantText(t, err, "PID", "LeaveStopped", "LazyPages", "LogFile", "External[0]", "NUL", "magic", "CPUCap", "Timeout", "GhostLimit", "InheritFiles[0]", "/nonexistent")
	if reqs := peer.Requests(); len(reqs) > 0 {
		t.Errorf("the peer was asked %v", reqs)
	}
}

func TestNotADirectory(t *testing.T) {
	c := criu.New(criutest.NewPeer(t).Transport())
	_, err := c.Dump(t.Context(), criu.DumpOptions{PID: 1, ImagesDir: "/dev/null"})
	if !errors.Is(err, syscall.ENOTDIR) || !errors.Is(err, criu.ErrOptions) {
		t.Errorf("a file as directory: %v", err)
	}
	f, openErr := os.Open(os.DevNull)
	if openErr != nil {
		t.Fatal(openErr)
	}
	_, err = c.Dump(t.Context(), criu.DumpOptions{PID: 1, ImagesDirFile: f})
	wantText(t, err, "not a directory")
	f.Close()
	if _, err = c.Dump(t.Context(), criu.DumpOptions{PID: 1, ImagesDirFile: f}); !errors.Is(err, criu.ErrOptions) {
		t.Errorf("a closed file as directory: %v", err)
	}
}

func TestCannotConnect(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 120))
	// A socket that nobody listens on any more.
	refused := filepath.Join(dir, "refused")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: refused})
		unix.Close(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		transport criu.Transport
		cause     error
		text      string
	}{
		"no socket":        {&criu.Service{Path: filepath.Join(dir, "none")}, os.ErrNotExist, "none"},
		"nobody there":     {&criu.Service{Path: refused}, syscall.ECONNREFUSED, "refused"},
		"not a socket":     {&criu.Service{Path: file}, syscall.ECONNREFUSED, "file"},
		"a long path":      {&criu.Service{Path: long}, syscall.ENAMETOOLONG, "107"},
		"no binary":        {&criu.Swrk{Path: filepath.Join(dir, "none")}, os.ErrNotExist, "none"},
		"none in PATH":     {&criu.Swrk{Path: "no-such-criu-anywhere"}, exec.ErrNotFound, "no-such-criu-anywhere"},
		"not executable":   {&criu.Swrk{Path: file}, os.ErrPermission, "file"},
		"a directory":      {&criu.Swrk{Path: dir}, nil, dir},
		"no file":          {&criu.FD{}, nil, "file"},
		"a file that is a": {&criu.FD{File: openNull(t)}, nil, "null"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := criu.New(test.transport).Version(t.Context())
			if !errors.Is(err, criu.ErrConnect) || !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v does not match ErrConnect and ECONNREFUSED", err)
			}
			if test.cause != nil && !errors.Is(err, test.cause) {
				t.Errorf("%v does not match its cause %v", err, test.cause)
			}
			wantText(t, err, test.text)
		})
	}
}

func openNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestFDServesOneCall: a descriptor cannot be used twice.
func TestFDServesOneCall(t *testing.T) {
	c := criu.New(criutest.NewPeer(t).FD())
	if _, err := c.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Version(t.Context()); !errors.Is(err, criu.ErrConnect) {
		t.Errorf("a second call: %v", err)
	}
}

// TestNotCRIU: programs that are something else.
func TestNotCRIU(t *testing.T) {
	for name, script := range map[string]string{
		"true": "exec true", "false": "exec false", "cat": "exec cat", "sleep": "exec sleep 1000",
		"talks nonsense": "echo hello >&3; exec sleep 0.2", "a shell error": "no-such-program",
	} {
		t.Run(name, func(t *testing.T) {
			criutest.NoLeaks(t)
			path := filepath.Join(t.TempDir(), "criu")
			if err := testkit.WriteProgram(path, []byte("#!/bin/sh\n"+script+"\n")); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := criu.New(&criu.Swrk{Path: path}, criu.WithGrace(100*time.Millisecond)).Dump(ctx, criu.DumpOptions{PID: os.Getpid(), ImagesDir: t.TempDir()})
			switch name {
			case "sleep":
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a program that does nothing: %v", err)
				}
			default:
				if !errors.Is(err, criu.ErrTransport) || !errors.Is(err, syscall.ECOMM) {
					t.Errorf("%v does not match ErrTransport and ECOMM", err)
				}
			}
			if name == "a shell error" {
				wantText(t, err, "no-such-program", "127")
			}
		})
	}
}

// TestFullAndReadOnly: a directory that cannot take the images is named as the reason, and the victim lives.
func TestFullAndReadOnly(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	c := swrk(t)
	for _, test := range []struct {
		name, options string
		flags         uintptr
		errno         syscall.Errno
		sentinel      error
	}{
		{"full", "size=32k", 0, syscall.ENOSPC, criu.ErrNoSpace},
		{"full at once", "nr_inodes=1", 0, syscall.ENOSPC, criu.ErrNoSpace},
		{"read-only", "", unix.MS_RDONLY, syscall.EROFS, criu.ErrFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := testkit.StartVictim(t, "counter")
			dir := t.TempDir()
			if err := unix.Mount("stasis-test", dir, "tmpfs", test.flags, test.options); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
			_, err := c.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: dir})
			if !errors.Is(err, test.errno) || !errors.Is(err, test.sentinel) {
				t.Errorf("%v does not match %v and %v", err, test.errno, test.sentinel)
			}
			wantText(t, err, dir)
			counts(t, v)
			v.MustVerify()
		})
	}
}

// TestTruncatedImages: each image in turn is cut; a restore fails or, where it does not need it, succeeds, but does not
// hang and leaves nothing.
func TestTruncatedImages(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("counter"))
	testkit.Need(t, testkit.Root, testkit.CRIU)
	c, dir := criu.New(&criu.Swrk{Path: testkit.CRIUPath(t)}, criu.WithGrace(100*time.Millisecond)), t.TempDir()
	v := testkit.StartVictim(t, "counter")
	dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
	images, err := filepath.Glob(filepath.Join(dir, "*.img"))
	if err != nil || len(images) < 10 {
		t.Fatalf("images %v, %v", images, err)
	}
	var harmless []string
	for _, image := range images {
		whole, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		for _, keep := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
			if keep < 0 || keep >= len(whole) {
				continue
			}
			if err := os.WriteFile(image, whole[:keep], 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			r, err := c.Restore(ctx, criu.RestoreOptions{ImagesDir: dir, LogFile: "restore.log"})
			cancel()
			name := filepath.Base(image)
			switch {
			case err == nil:
				harmless = append(harmless, name)
				if killErr := testkit.OpenProcess(t, r.PID).Kill(); killErr != nil {
					t.Fatal(killErr)
				}
			case errors.Is(err, context.DeadlineExceeded):
				t.Errorf("%s, %d of %d bytes: the restore hangs", name, keep, len(whole))
			case !errors.Is(err, criu.ErrFailed) && !errors.Is(err, criu.ErrTransport):
				t.Errorf("%s, %d of %d bytes: %v", name, keep, len(whole), err)
			}
			pidFree(t, v.Pid)
		}
		if err := os.WriteFile(image, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("restored in spite of it: %v", harmless)
	if len(harmless) > len(images) {
		t.Errorf("most cut images did no harm: %v", harmless)
	}
	restore(t, c, v, criu.RestoreOptions{ImagesDir: dir})
	v.MustVerify()
}

// TestOtherReleases: whatever other CRIUs tools/get-criu has fetched can be asked; those before 4.2 crash on a check
// that sends no options.
func TestOtherReleases(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.CRIU)
	paths, _ := filepath.Glob(filepath.Join(testkit.SourceRoot(), ".tools", "criu*", "bin", "criu"))
	for _, path := range paths {
		c := criu.New(&criu.Swrk{Path: path})
		v, err := c.Version(t.Context())
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if err := c.Check(t.Context(), criu.CheckOptions{}); err != nil {
			t.Errorf("%s, version %v: %v", path, v, err)
		}
		t.Logf("%s is %v", path, v)
	}
}
