package criutest

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
)

func scriptedTests() []suiteTest {
	return []suiteTest{
		{"operations", 0, scriptedOperations},
		{"answers to failures", 0, scriptedFailures},
		{"death", 0, scriptedDeath},
		{"status of a dead peer", Owns | Explains, scriptedStatus},
		{"slow answers", 0, scriptedSlow},
		{"notifications", Notifies, scriptedNotifications},
		{"odd notifications", Notifies, scriptedOddNotifications},
		{"files", Notifies, scriptedFiles},
		{"refusal", Notifies, scriptedRefusal},
		{"cancelled notification", Notifies | Cancels, scriptedCancelledNotification},
		{"hang", Cancels, scriptedHang},
		{"a peer that stops reading", Notifies | Cancels, scriptedStopsReading},
		{"ended context", Cancels, scriptedEnded},
		{"harmless first error", Explains, scriptedHarmless},
		{"concurrency", 0, scriptedConcurrency},
		{"options are the caller's", Notifies, scriptedOptions},
		{"sessions", 0, scriptedSessions},
		{"other requests", 0, scriptedOther},
		{"iterations", 0, scriptedIterations},
	}
}

func imagesDir(t *testing.T) string {
	t.Helper()
	return t.TempDir()
}

func dumpOptions(t *testing.T) criu.DumpOptions {
	t.Helper()
	return criu.DumpOptions{PID: os.Getpid(), ImagesDir: imagesDir(t)}
}

// scriptedOperations: what a peer that behaves is asked and answers.
func scriptedOperations(t *testing.T, target Target) {
	peer := NewPeer(t)
	c := target.Scripted(t, peer)
	ctx := context.Background()
	v, err := c.Version(ctx)
	if err != nil || v.Major != VersionMajor || v.Minor != VersionMinor || v.Sublevel != VersionSublevel {
		t.Errorf("version: %+v, %v", v, err)
	}
	f, err := c.Features(ctx)
	if want := (criu.Features{LazyPages: true, PIDFDStore: true}); err != nil || f != want {
		t.Errorf("features: %+v, %v; want the peer's answer %+v", f, err, want)
	}
	if err := c.Check(ctx, criu.CheckOptions{}); err != nil {
		t.Errorf("check: %v", err)
	}
	if r, err := c.Dump(ctx, dumpOptions(t)); err != nil || r.Restored {
		t.Errorf("dump: %+v, %v", r, err)
	}
	if err := c.PreDump(ctx, criu.PreDumpOptions{PID: os.Getpid(), ImagesDir: imagesDir(t)}); err != nil {
		t.Errorf("pre-dump: %v", err)
	}
	if r, err := c.Restore(ctx, criu.RestoreOptions{ImagesDir: imagesDir(t)}); err != nil || r.PID != RestoredPID {
		t.Errorf("restore: %+v, %v", r, err)
	}
	var types []rpc.ReqType
	for _, req := range peer.Requests() {
		types = append(types, req.Type)
		switch req.Type {
		case rpc.ReqFeatureCheck:
			if req.Features == nil {
				t.Error("a feature check without features crashes CRIU")
			}
		case rpc.ReqCheck:
			// libcriu's check is without options by definition.
			if target.can(Explains) && (req.Opts == nil || req.Opts.ImagesDirFD < 0) {
				t.Error("a check without options and an open directory crashes CRIU before 4.2")
			}
		case rpc.ReqDump, rpc.ReqSinglePreDump:
			if req.Opts == nil || req.Opts.PID == nil || int(*req.Opts.PID) != os.Getpid() {
				t.Errorf("%v without the pid", req.Type)
			}
		}
	}
	want := []rpc.ReqType{rpc.ReqVersion, rpc.ReqFeatureCheck, rpc.ReqCheck, rpc.ReqDump, rpc.ReqSinglePreDump, rpc.ReqRestore}
	if !slices.Equal(types, want) {
		t.Errorf("the peer was asked %v, want %v", types, want)
	}
}

// scriptedFailures: answers that are no success, by the table of errors.
func scriptedFailures(t *testing.T, target Target) {
	ctx := context.Background()
	check := func(c Client) error { return c.Check(ctx, criu.CheckOptions{}) }
	version := func(c Client) error { _, err := c.Version(ctx); return err }
	features := func(c Client) error { _, err := c.Features(ctx); return err }
	dump := func(c Client) error {
		_, err := c.Dump(ctx, criu.DumpOptions{PID: os.Getpid(), ImagesDir: t.TempDir()})
		return err
	}
	restore := func(c Client) error {
		_, err := c.Restore(ctx, criu.RestoreOptions{ImagesDir: t.TempDir()})
		return err
	}
	success := func(t rpc.ReqType) Step { return Send(&rpc.Resp{Type: t, Success: true}) }
	for _, test := range []struct {
		name     string
		answer   Step
		ask      func(Client) error
		sentinel error
		codes    []syscall.Errno
		text     string // in the message, of a target that explains
	}{
		{"failure", Fail(0, ""), check, criu.ErrFailed, []syscall.Errno{syscall.EBADE}, ""},
		{"failure with errno", Fail(syscall.EPERM, "no rights"), check, criu.ErrFailed, []syscall.Errno{syscall.EBADE, syscall.EPERM}, "no rights"},
		{"no process", Fail(syscall.ESRCH, ""), dump, criu.ErrNoProcess, []syscall.Errno{syscall.EBADE, syscall.ESRCH}, ""},
		{"pid in use", Fail(syscall.EEXIST, ""), restore, criu.ErrPIDInUse, []syscall.Errno{syscall.EBADE, syscall.EEXIST}, ""},
		{"bad request", Fail(syscall.EBADRQC, ""), dump, criu.ErrBadRequest, []syscall.Errno{syscall.EBADE, syscall.EBADRQC}, ""},
		{"no space", Fail(syscall.ENOSPC, ""), dump, criu.ErrNoSpace, []syscall.Errno{syscall.EBADE, syscall.ENOSPC}, ""},
		{"a long message", Fail(0, strings.Repeat("long ", 4000)+"end"), check, criu.ErrFailed, []syscall.Errno{syscall.EBADE}, "long end"},
		{"unknown request", Send(&rpc.Resp{Type: rpc.ReqEmpty}), check, criu.ErrUnsupported, []syscall.Errno{syscall.EINVAL}, "CHECK"},
		{"another type", success(rpc.ReqRestore), check, criu.ErrProtocol, []syscall.Errno{syscall.EBADMSG}, "RESTORE"},
		{"another type, failed", Send(&rpc.Resp{Type: rpc.ReqRestore}), check, criu.ErrProtocol, []syscall.Errno{syscall.EBADMSG}, "RESTORE"},
		{"empty with success", success(rpc.ReqEmpty), check, criu.ErrProtocol, []syscall.Errno{syscall.EBADMSG}, "EMPTY"},
		{"a type nobody knows", success(4444), check, criu.ErrProtocol, []syscall.Errno{syscall.EBADMSG}, "4444"},
		{"version without version", success(rpc.ReqVersion), version, criu.ErrProtocol, []syscall.Errno{syscall.EBADMSG}, ""},
		{"features without features", success(rpc.ReqFeatureCheck), features, criu.ErrProtocol, []syscall.Errno{syscall.EBADMSG}, ""},
		{"restore without a pid", success(rpc.ReqRestore), restore, criu.ErrProtocol, []syscall.Errno{syscall.EBADMSG}, ""},
		{"garbage", SendRaw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), check, criu.ErrTransport, []syscall.Errno{syscall.ECOMM}, ""},
		{"a cut message", SendRaw([]byte{0x08, 0x03}), check, criu.ErrTransport, []syscall.Errno{syscall.ECOMM}, ""},
		{"an empty packet", SendRaw(nil), check, criu.ErrTransport, []syscall.Errno{syscall.ECOMM}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := target.Scripted(t, NewPeer(t, Script{Receive(), test.answer}))
			within(t, test.name, func() {
				err := test.ask(c)
				wantError(t, err, test.sentinel, test.codes...)
				if target.can(Explains) && err != nil && !strings.Contains(err.Error(), test.text) {
					t.Errorf("error %q lacks %q", err, test.text)
				}
			})
		})
	}
	t.Run("dump without its message is a dump", func(t *testing.T) {
		if err := dump(target.Scripted(t, NewPeer(t, Script{Receive(), success(rpc.ReqDump)}))); err != nil {
			t.Error(err)
		}
	})
	t.Run("a second answer is not waited for", func(t *testing.T) {
		if err := version(target.Scripted(t, NewPeer(t, Script{Receive(), Answer(), Answer()}))); err != nil {
			t.Error(err)
		}
	})
	t.Run("megabytes", func(t *testing.T) {
		needRoot(t) // for a socket that takes them
		packet := (&rpc.Resp{Type: rpc.ReqCheck, Success: true, CrErrmsg: new(strings.Repeat("x", 2<<20))}).Append(nil)
		c := target.Scripted(t, NewPeer(t, Script{Receive(), SendRaw(packet)}))
		within(t, "a huge answer", func() {
			if err := check(c); !errors.Is(err, criu.ErrProtocol) && !errors.Is(err, criu.ErrTransport) {
				t.Errorf("a huge answer: %v", err)
			}
		})
	})
}

// scriptedDeath: a peer that leaves before or after each message.
func scriptedDeath(t *testing.T, target Target) {
	notify := target.can(Notifies)
	for _, test := range []struct {
		name   string
		script Script
	}{
		{"at once", Script{}},
		{"before it reads", Script{Exit(1)}},
		{"after the request", Script{Receive()}},
		{"after a notification", Script{Receive(), Send(&rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: &rpc.Notify{Script: new("pre-dump")}})}},
		{"after the answer to a notification", Script{Receive(), Notify("pre-dump", 0)}},
		{"after two notifications", Script{Receive(), Notify("pre-dump", 0), Notify("network-lock", 0)}},
		{"killed", Script{Receive(), Kill(syscall.SIGKILL)}},
	} {
		if !notify && strings.Contains(test.name, "notification") {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			c := target.Scripted(t, NewPeer(t, test.script))
			o := dumpOptions(t)
			if notify {
				o.Notify = func(context.Context, *criu.Event) error { return nil }
			}
			within(t, "a dump by a peer that died", func() {
				_, err := c.Dump(context.Background(), o)
				wantError(t, err, criu.ErrTransport, syscall.ECOMM)
			})
		})
	}
}

// scriptedStatus: the error says how a child ended, and what it said.
func scriptedStatus(t *testing.T, target Target) {
	for _, test := range []struct {
		name   string
		script Script
		want   string
	}{
		{"status 0", Script{Receive(), Exit(0)}, "status 0"},
		{"status 1", Script{Receive(), Exit(1)}, "status 1"},
		{"status 255", Script{Receive(), Exit(255)}, "status 255"},
		{"signal", Script{Receive(), Kill(syscall.SIGKILL)}, "killed"},
		{"last words", Script{Receive(), Stderr("no more of this\n"), Exit(1)}, "no more of this"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := target.Scripted(t, NewPeer(t, test.script)).Check(context.Background(), criu.CheckOptions{})
			wantError(t, err, criu.ErrTransport, syscall.ECOMM)
			if err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q lacks %q", err, test.want)
			}
		})
	}
	t.Run("a status after the answer is none of ours", func(t *testing.T) {
		for _, last := range []Step{Exit(255), Exit(1), Kill(syscall.SIGKILL)} {
			c := target.Scripted(t, NewPeer(t, Script{Receive(), Answer(), last}))
			if err := c.Check(context.Background(), criu.CheckOptions{}); err != nil {
				t.Errorf("%v: %v", last, err)
			}
		}
	})
}

func scriptedSlow(t *testing.T, target Target) {
	c := target.Scripted(t, NewPeer(t, Script{Receive(), Sleep(100 * time.Millisecond), Answer()}))
	if _, err := c.Version(context.Background()); err != nil {
		t.Error(err)
	}
}

func scriptedNotifications(t *testing.T, target Target) {
	peer := NewPeer(t)
	c := target.Scripted(t, peer)
	var names []string
	pids := map[string]int{}
	_, err := c.Restore(context.Background(), criu.RestoreOptions{ImagesDir: imagesDir(t),
		Notify: func(_ context.Context, ev *criu.Event) error {
			names = append(names, ev.Name)
			pids[ev.Name] = ev.PID
			if ev.File != nil {
				t.Errorf("%s came with a file", ev.Name)
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if want := Stages(rpc.ReqRestore); !slices.Equal(names, want) {
		t.Errorf("notifications %v, want %v", names, want)
	}
	if pids["post-restore"] != RestoredPID || pids["pre-restore"] != 0 {
		t.Errorf("pids of the notifications: %v", pids)
	}
	if reqs := peer.Requests(); len(reqs) != 1+len(names) || reqs[0].Opts.NotifyScripts == nil {
		t.Errorf("%d packets for a request with %d notifications", len(reqs), len(names))
	}
}

// scriptedOddNotifications: names that nobody knows reach the callback, and a notification without anything does.
func scriptedOddNotifications(t *testing.T, target Target) {
	peer := NewPeer(t, Script{Receive(), Notify("the-end-is-near", 7),
		Send(&rpc.Resp{Type: rpc.ReqNotify, Success: true}), Receive(),
		Send(&rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: &rpc.Notify{}}), Receive(), Answer()})
	var events []criu.Event
	o := dumpOptions(t)
	o.Notify = func(_ context.Context, ev *criu.Event) error {
		events = append(events, *ev)
		return nil
	}
	if _, err := target.Scripted(t, peer).Dump(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if len(events) != 3 || events[0].Name != "the-end-is-near" || events[0].PID != 7 || events[1].Name != "" || events[2].Name != "" {
		t.Errorf("events %+v", events)
	}
	for _, req := range peer.Requests()[1:] {
		if req.Type != rpc.ReqNotify || req.NotifySuccess == nil || !*req.NotifySuccess {
			t.Errorf("a notification was answered with %+v", req)
		}
	}
}

// scriptedFiles: descriptors that come along reach the callback or are closed.
func scriptedFiles(t *testing.T, target Target) {
	hundreds := make([]string, 253) // as many as the kernel takes at once
	for i := range hundreds {
		hundreds[i] = "one of many"
	}
	stray := make([]string, 20)
	peer := NewPeer(t, Script{Receive(), Notify("orphan-pts-master", 0, "the first"), Notify("many", 0, hundreds...),
		Notify("ignored", 0, "ignored"),
		Step{Do: ActSend, Data: (&rpc.Resp{Type: rpc.ReqDump, Success: true}).Append(nil), Files: stray}})
	o := dumpOptions(t)
	var kept *os.File
	read := map[string]string{}
	o.Notify = func(_ context.Context, ev *criu.Event) error {
		if ev.File == nil {
			return errors.New(ev.Name + " came without a file")
		}
		if ev.Name == "ignored" {
			return nil
		}
		text, err := io.ReadAll(ev.File)
		read[ev.Name] = string(text)
		if ev.Name == "orphan-pts-master" {
			kept = ev.TakeFile()
		}
		return err
	}
	if _, err := target.Scripted(t, peer).Dump(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if read["orphan-pts-master"] != "the first" || read["many"] != "one of many" {
		t.Errorf("read from the files: %q", read)
	}
	if kept == nil {
		t.Fatal("no file was kept")
	}
	if _, err := kept.Seek(0, io.SeekStart); err != nil {
		t.Errorf("the file that was taken: %v", err)
	}
	kept.Close()
}

// scriptedRefusal: an error of a callback is told to the peer and comes back, with the peer's reason.
func scriptedRefusal(t *testing.T, target Target) {
	mine := errors.New("not on a Monday")
	refuse := func(_ context.Context, ev *criu.Event) error {
		if ev.Name == "network-lock" {
			return mine
		}
		return nil
	}
	for _, test := range []struct {
		name   string
		script Script
	}{
		{"obeyed", Script{Serve()}},
		{"answered with an errno", Script{Receive(), Notify("network-lock", 0), Fail(syscall.EPERM, "refused")}},
		{"cleaned up after", Script{Receive(), Notify("network-lock", 0), Notify("network-unlock", 0), Fail(0, "")}},
		{"not answered", Script{Receive(), Notify("network-lock", 0)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			peer := NewPeer(t, test.script)
			o := dumpOptions(t)
			o.Notify = refuse
			within(t, "a refused dump", func() {
				_, err := target.Scripted(t, peer).Dump(context.Background(), o)
				wantError(t, err, criu.ErrRefused, syscall.EBADE)
				if !errors.Is(err, criu.ErrFailed) || !errors.Is(err, mine) {
					t.Errorf("error %q is not a failure with the callback's error", err)
				}
			})
			if reqs := peer.Requests(); !slices.ContainsFunc(reqs, func(r *rpc.Req) bool {
				return r.Type == rpc.ReqNotify && r.NotifySuccess != nil && !*r.NotifySuccess
			}) {
				t.Error("the peer was not told")
			}
		})
	}
}

// scriptedCancelledNotification: a context that ends while a callback runs refuses that notification.
func scriptedCancelledNotification(t *testing.T, target Target) {
	peer := NewPeer(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := dumpOptions(t)
	o.Notify = func(ctx context.Context, ev *criu.Event) error {
		if ev.Name == "network-lock" {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	within(t, "a cancelled dump", func() {
		_, err := target.Scripted(t, peer).Dump(ctx, o)
		wantError(t, err, criu.ErrFailed, syscall.EBADE)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %q does not wrap the context's", err)
		}
	})
	reqs := peer.Requests()
	if last := reqs[len(reqs)-1]; last.Type != rpc.ReqNotify || last.NotifySuccess == nil || *last.NotifySuccess {
		t.Errorf("the last packet was %+v, want a refusal", last)
	}
}

// scriptedHang: a peer that does not answer is left when the context has ended and the grace period is over.
func scriptedHang(t *testing.T, target Target) {
	for _, test := range []struct {
		name   string
		script Script
	}{
		{"before it reads", Script{Hang()}},
		{"after the request", Script{Receive(), Hang()}},
		{"in a dump", Script{Receive(), Notify("pre-dump", 0), Hang()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := target.Scripted(t, NewPeer(t, test.script))
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			within(t, "a dump by a peer that hangs", func() {
				_, err := c.Dump(ctx, dumpOptions(t))
				wantError(t, err, criu.ErrFailed, syscall.EBADE)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %q does not wrap the context's", err)
				}
			})
		})
	}
}

// scriptedStopsReading: a peer that only talks fills the socket with answers to its notifications.
func scriptedStopsReading(t *testing.T, target Target) {
	script := Script{Receive()}
	for range 2000 {
		script = append(script, Send(&rpc.Resp{Type: rpc.ReqNotify, Success: true, Notify: &rpc.Notify{Script: new("again")}}))
	}
	c := target.Scripted(t, NewPeer(t, append(script, Hang())))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	time.AfterFunc(300*time.Millisecond, cancel)
	within(t, "a dump by a peer that only talks", func() {
		_, err := c.Dump(ctx, dumpOptions(t))
		wantError(t, err, criu.ErrFailed)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %q does not wrap the context's", err)
		}
	})
}

// scriptedEnded: with a context that has ended nothing is asked.
func scriptedEnded(t *testing.T, target Target) {
	peer := NewPeer(t)
	c := target.Scripted(t, peer)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Dump(ctx, dumpOptions(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("dump with an ended context: %v", err)
	}
	for _, req := range peer.Requests() {
		t.Errorf("the peer was asked %v", req.Type)
	}
}

// scriptedHarmless: the first error line comes with success, too, and says nothing then.
func scriptedHarmless(t *testing.T, target Target) {
	const line = "Error (criu/rlimit.c:25): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted"
	c := target.Scripted(t, NewPeer(t, Script{Receive(), Send(&rpc.Resp{Type: rpc.ReqCheck, Success: true, CrErrmsg: new(line)})}))
	if err := c.Check(context.Background(), criu.CheckOptions{}); err != nil {
		t.Errorf("a check that succeeded with a first error line: %v", err)
	}
	c = target.Scripted(t, NewPeer(t, Script{Receive(), Fail(0, line)}))
	if err := c.Check(context.Background(), criu.CheckOptions{}); err == nil || !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
		t.Errorf("a check that failed with nothing but the first error line: %v", err)
	}
}

func scriptedConcurrency(t *testing.T, target Target) {
	peer := NewPeer(t)
	c := target.Scripted(t, peer)
	o := dumpOptions(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.Version(context.Background()); err != nil {
				t.Error(err)
			}
			if _, err := c.Dump(context.Background(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(peer.Conversations()); n != 16 {
		t.Errorf("%d conversations for 16 calls", n)
	}
}

// scriptedOptions: a client changes nothing in the options that it is given, and keeps nothing.
func scriptedOptions(t *testing.T, target Target) {
	c := target.Scripted(t, NewPeer(t))
	external := append(make([]string, 0, 8), "mnt[a]:b")
	o := dumpOptions(t)
	o.Notify = func(context.Context, *criu.Event) error { return nil }
	o.External = external
	o.PageServer = &criu.PageServerAddr{Address: "127.0.0.1", Port: 1}
	o.CgroupRoots = []criu.CgroupRoot{{Controller: "cpu", Path: "/a"}, {Path: "/b"}}
	check := unchanged(t, o)
	for range 2 {
		if _, err := c.Dump(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	check()
	if rest := external[:cap(external)]; rest[1] != "" {
		t.Errorf("the client has written behind a slice: %q", rest)
	}
	r := criu.RestoreOptions{ImagesDir: imagesDir(t), Notify: o.Notify, External: external}
	check = unchanged(t, r)
	if _, err := c.Restore(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	check()
}
