package criu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/criutest"
	"stasis.example/internal/testkit"
)

// TestKilledRestore: a CRIU that dies in the middle of a restore leaves half-made processes, which hold its socket open.
// The client must notice all the same, without a context that ends, and leave nothing.
func TestKilledRestore(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("tree"))
	for _, child := range []bool{false, true} {
		for _, stage := range []string{"pre-restore", "post-restore"} {
			t.Run(fmt.Sprintf("%s as child %v", stage, child), func(t *testing.T) {
				criutest.NoLeaks(t)
				s, dir := newStopped(t), t.TempDir()
				c := criu.New(s.Swrk)
				v := testkit.StartVictim(t, "tree")
				dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
				o := criu.RestoreOptions{ImagesDir: dir, Notify: func(_ context.Context, ev *criu.Event) error {
					if ev.Name == stage {
						return unix.Kill(int(s.pid.Load()), unix.SIGKILL)
					}
					return nil
				}}
				done := make(chan error, 1)
				go func() {
					var err error
					if child {
						_, err = c.RestoreChild(context.Background(), o)
					} else {
						_, err = c.Restore(context.Background(), o)
					}
					done <- err
				}()
				err := within(t, done)
				if !errors.Is(err, criu.ErrTransport) || !errors.Is(err, syscall.ECOMM) {
					t.Errorf("a restore whose peer was killed: %v", err)
				}
				wantText(t, err, "killed")
				if exists(v.Pid) {
					t.Errorf("something is left under the pid %d", v.Pid)
				}
				restore(t, c, v, criu.RestoreOptions{ImagesDir: dir})
				v.MustVerify()
			})
		}
	}
}

// TestSlowEndAfterRestore: a peer that has restored and then does not end, as one that is stopped or starved of processor
// time, costs nobody what it restored. Until it has ended it is the parent of the tree.
func TestSlowEndAfterRestore(t *testing.T) {
	criutest.NoLeaks(t)
	dir := t.TempDir()
	restored := filepath.Join(dir, "restored")
	s := criutest.NewPeer(t, criutest.Script{criutest.Receive(), criutest.Answer(), criutest.Sleep(time.Minute)}).Swrk()
	wrapper := filepath.Join(dir, "peer")
	text := fmt.Sprintf("#!/bin/sh\nsleep 60 3>&- &\necho $! >%s\nexec %s \"$@\"\n", restored, s.Path)
	if err := os.WriteFile(wrapper, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Path = wrapper
	var peer int
	s.Started = func(pid int) error {
		peer = pid
		return nil
	}
	if _, err := criu.New(s).Restore(t.Context(), criu.RestoreOptions{ImagesDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if exists(peer) {
		t.Error("the peer is left")
	}
	number, err := os.ReadFile(restored)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(number)))
	if err != nil {
		t.Fatal(err)
	}
	p := testkit.OpenProcess(t, pid) // which fails if it is gone
	if p.Gone() {
		t.Error("what was restored has been killed")
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
}

// TestKilledRestoreAnywhere kills the peer at moments that no notification marks.
func TestKilledRestoreAnywhere(t *testing.T) {
	testkit.Need(t, testkit.VictimProgram("tree"))
	s, dir := newStopped(t), t.TempDir()
	c := criu.New(s.Swrk)
	v := testkit.StartVictim(t, "tree")
	dump(t, c, v, criu.DumpOptions{ImagesDir: dir})
	died := 0
	for i := range 30 {
		s.Started = func(pid int) error {
			time.AfterFunc(time.Duration(i)*4*time.Millisecond, func() { unix.Kill(pid, unix.SIGKILL) })
			return nil
		}
		done := make(chan error, 1)
		go func() {
			var err error
			if i%2 == 0 {
				_, err = c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: dir})
			} else {
				_, err = c.RestoreChild(context.Background(), criu.RestoreOptions{ImagesDir: dir})
			}
			done <- err
		}()
		err := within(t, done)
		if err == nil {
			p := testkit.OpenProcess(t, v.Pid)
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			pidFree(t, v.Pid)
			continue
		}
		died++
		if !errors.Is(err, criu.ErrTransport) {
			t.Errorf("%d ms: %v", i*4, err)
		}
		if exists(v.Pid) {
			t.Fatalf("%d ms: something is left under the pid %d: %v", i*4, v.Pid, err)
		}
	}
	t.Logf("in %d of 30 restores the peer died", died)
	s.Started = nil
	restore(t, c, v, criu.RestoreOptions{ImagesDir: dir})
	v.MustVerify()
}

// within waits for the end of a call.
func within(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the call hangs")
		return nil
	}
}
