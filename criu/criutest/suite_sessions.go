package criutest

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
)

// scriptedSessions: several requests on one conversation.
func scriptedSessions(t *testing.T, target Target) {
	session := func(t *testing.T, p *Peer) *criu.Session {
		c := full(target.Scripted(t, p))
		if c == nil {
			return nil
		}
		s := c.Session()
		t.Cleanup(func() { s.Close() })
		return s
	}
	ctx := context.Background()
	t.Run("four requests", func(t *testing.T) {
		peer := NewPeer(t)
		s := session(t, peer)
		if s == nil {
			return
		}
		o := criu.CPUInfoOptions{ImagesDir: imagesDir(t)}
		_, versionErr := s.Version(ctx)
		_, featuresErr := s.Features(ctx)
		if err := errors.Join(versionErr, featuresErr, s.CPUInfoDump(ctx, o), s.CPUInfoCheck(ctx, o)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := s.Version(ctx); !errors.Is(err, criu.ErrClosed) {
			t.Errorf("a request after the end: %v", err)
		}
		all := peer.Conversations()
		if len(all) != 1 || len(all[0]) != 4 {
			t.Fatalf("conversations: %v", all)
		}
		for _, req := range all[0] {
			if req.KeepOpen == nil || !*req.KeepOpen {
				t.Errorf("%v without keep_open", req.Type)
			}
		}
	})
	t.Run("from many goroutines", func(t *testing.T) {
		peer := NewPeer(t)
		s := session(t, peer)
		if s == nil {
			return
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := s.Version(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if all := peer.Conversations(); len(all) != 1 || len(all[0]) != 8 {
			t.Errorf("conversations: %v", all)
		}
	})
	t.Run("a failure ends it", func(t *testing.T) {
		s := session(t, NewPeer(t, Script{Receive(), Answer(), Receive(), Fail(0, "")}))
		if s == nil {
			return
		}
		if _, err := s.Version(ctx); err != nil {
			t.Fatal(err)
		}
		_, err := s.Version(ctx)
		wantError(t, err, criu.ErrFailed, syscall.EBADE)
		_, err = s.Version(ctx)
		wantError(t, err, criu.ErrClosed)
	})
	t.Run("an answer too many is noticed", func(t *testing.T) {
		s := session(t, NewPeer(t, Script{Receive(), Answer(), Answer(), Receive(), Answer()}))
		if s == nil {
			return
		}
		if _, err := s.Version(ctx); err != nil {
			t.Fatal(err)
		}
		_, err := s.Features(ctx)
		wantError(t, err, criu.ErrProtocol, syscall.EBADMSG)
	})
	t.Run("bad options leave it open", func(t *testing.T) {
		s := session(t, NewPeer(t))
		if s == nil {
			return
		}
		if _, err := s.Version(ctx); err != nil {
			t.Fatal(err)
		}
		wantError(t, s.CPUInfoDump(ctx, criu.CPUInfoOptions{}), criu.ErrOptions)
		if _, err := s.Version(ctx); err != nil {
			t.Errorf("after options that were refused: %v", err)
		}
	})
}

// scriptedOther: the operations that only package criu's client has.
func scriptedOther(t *testing.T, target Target) {
	peer := NewPeer(t)
	c := full(target.Scripted(t, peer))
	if c == nil {
		return
	}
	ctx := context.Background()
	dir := imagesDir(t)
	if err := errors.Join(c.CPUInfoDump(ctx, criu.CPUInfoOptions{ImagesDir: dir}), c.CPUInfoCheck(ctx, criu.CPUInfoOptions{ImagesDir: dir})); err != nil {
		t.Errorf("cpuinfo: %v", err)
	}
	ps, err := c.PageServer(ctx, criu.PageServerOptions{ImagesDir: dir, PageServer: &criu.PageServerAddr{Address: "127.0.0.1"}})
	if err != nil || ps.PID != PageServerPID || ps.Port != PageServerPort {
		t.Errorf("page server: %+v, %v", ps, err)
	}
	before := len(peer.Conversations())
	ps, err = c.PageServerChild(ctx, criu.PageServerOptions{ImagesDir: dir})
	if err != nil {
		t.Fatalf("page server as a child: %v", err)
	}
	status, err := ps.Wait(ctx)
	if err != nil || status.ExitStatus() != 3 {
		t.Errorf("its status: %v, %v", status, err)
	}
	if err := ps.Close(); err != nil {
		t.Errorf("its end: %v", err)
	}
	all := peer.Conversations()[before:]
	if len(all) != 1 || len(all[0]) != 2 || all[0][0].Type != rpc.ReqPageServerChild || all[0][1].Type != rpc.ReqWaitPID ||
		all[0][1].PID == nil || *all[0][1].PID != PageServerPID {
		t.Errorf("the page server's conversation: %v", all)
	}
	resp, err := c.Do(ctx, &rpc.Req{Type: 99}, nil)
	wantError(t, err, criu.ErrUnsupported, syscall.EINVAL)
	if resp != nil {
		t.Errorf("an answer to an unknown request: %+v", resp)
	}
	if !target.can(Owns) {
		_, err := c.RestoreChild(ctx, criu.RestoreOptions{ImagesDir: dir})
		wantError(t, err, criu.ErrOptions)
		f, openErr := os.Open(os.DevNull)
		if openErr != nil {
			t.Fatal(openErr)
		}
		defer f.Close()
		_, err = c.Restore(ctx, criu.RestoreOptions{ImagesDir: dir, InheritFiles: []criu.InheritFile{{Key: "pipe:[1]", File: f}}})
		wantError(t, err, criu.ErrOptions)
	}
}

// scriptedIterations: rounds of pre-dumps go over one conversation that ends in a dump.
func scriptedIterations(t *testing.T, target Target) {
	peer := NewPeer(t)
	c := full(target.Scripted(t, peer))
	if c == nil {
		return
	}
	ctx := context.Background()
	options := func(more func(context.Context, criu.Round) (bool, error)) criu.IterativeOptions {
		return criu.IterativeOptions{Dump: criu.DumpOptions{PID: os.Getpid(), ImagesDir: imagesDir(t)}, More: more, PreDumpMode: criu.PreDumpModeRead}
	}
	var rounds []string
	result, err := c.DumpIterative(ctx, options(func(_ context.Context, r criu.Round) (bool, error) {
		rounds = append(rounds, r.Dir)
		return r.N < 3, nil
	}))
	if err != nil || result.Rounds != 3 || result.Dir != "4" || !slices.Equal(rounds, []string{"1", "2", "3"}) {
		t.Errorf("result %+v after the rounds %v: %v", result, rounds, err)
	}
	all := peer.Conversations()
	if len(all) != 1 || len(all[0]) != 4 {
		t.Fatalf("conversations: %v", all)
	}
	for i, req := range all[0] {
		want := rpc.ReqPreDump
		if i == 3 {
			want = rpc.ReqDump
		}
		parent := ""
		if req.Opts.ParentImg != nil {
			parent = *req.Opts.ParentImg
		}
		if req.Type != want || req.Opts.TrackMem == nil || parent != []string{"", "../1", "../2", "../3"}[i] ||
			(req.Opts.PreDumpMode != nil) != (i < 3) {
			t.Errorf("request %d: %v, parent %q, %+v", i, req.Type, parent, req.Opts)
		}
	}
	mine := errors.New("enough")
	_, err = c.DumpIterative(ctx, options(func(context.Context, criu.Round) (bool, error) { return false, mine }))
	wantError(t, err, criu.ErrRefused, syscall.EBADE)
	if !errors.Is(err, mine) {
		t.Errorf("error %q does not wrap the callback's", err)
	}
	_, err = c.DumpIterative(ctx, options(nil))
	wantError(t, err, criu.ErrOptions)
}
