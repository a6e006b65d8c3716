package server

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stasis.example/criu"
	"stasis.example/criu/rpc"
	"stasis.example/internal/testkit"
)

// An abuse is what a client does, by hand on its socket, at one notification of a dump or restore.
type abuse struct {
	name string
	do   func(t *testing.T, fd int)
}

func send(t *testing.T, fd int, packet []byte) {
	t.Helper()
	if err := unix.Send(fd, packet, unix.MSG_NOSIGNAL); err != nil {
		t.Fatal(err)
	}
}

// abuses are what no client should do instead of its answer.
func abuses() []abuse {
	yes := &rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true)}
	return []abuse{
		{"goes", func(t *testing.T, fd int) { unix.Close(fd) }},
		{"goes after the answer", func(t *testing.T, fd int) { send(t, fd, yes.Append(nil)); unix.Close(fd) }},
		{"sends no more", func(t *testing.T, fd int) { unix.Shutdown(fd, unix.SHUT_WR) }},
		{"says no", func(t *testing.T, fd int) {
			send(t, fd, (&rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(false)}).Append(nil))
		}},
		{"says neither", func(t *testing.T, fd int) { send(t, fd, (&rpc.Req{Type: rpc.ReqNotify}).Append(nil)) }},
		{"asks instead", func(t *testing.T, fd int) { send(t, fd, (&rpc.Req{Type: rpc.ReqVersion}).Append(nil)) }},
		{"sends nothing", func(t *testing.T, fd int) { send(t, fd, nil) }},
		{"sends noise", func(t *testing.T, fd int) { send(t, fd, []byte{0xff, 0xff, 0xff}) }},
		{"sends half", func(t *testing.T, fd int) { half := yes.Append(nil); send(t, fd, half[:len(half)-1]) }},
		{"sets options", func(t *testing.T, fd int) {
			send(t, fd, (&rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true), Opts: &rpc.Opts{ImagesDirFD: 900, RstSibling: new(true)}}).Append(nil))
		}},
	}
}

// abused sends a request and does something at the notification of a name, answering the others with yes. What it returns is the
// answer, nil where the client has not waited for one, or none came.
func abused(t *testing.T, s *testService, req *rpc.Req, stage string, a abuse) *rpc.Resp {
	t.Helper()
	fd := dial(t, s)
	send(t, fd, req.Append(nil))
	for {
		resp, err := answer(t, fd)
		if err != nil {
			unix.Close(fd)
			return nil
		}
		if resp.Type != rpc.ReqNotify {
			unix.Close(fd)
			return resp
		}
		if *resp.Notify.Script != stage {
			send(t, fd, (&rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true)}).Append(nil))
			continue
		}
		a.do(t, fd)
		if strings.HasPrefix(a.name, "goes") {
			return nil
		}
	}
}

// Whatever a client does at whichever stage, the tree of a dump that it spoils runs on, of a restore that it spoils nothing is left,
// and the service serves the next one. The peer is the built-in engine.
func TestAbuseOfEngineAtStages(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle = 2 })
	v := testkit.StartVictim(t, "counter")
	images := t.TempDir()
	dumpStages, restoreStages := stages(t, criu.New(&criu.Service{Path: s.socket}))
	for _, stage := range dumpStages {
		stage = strings.TrimSuffix(stage, "*")
		for _, a := range abuses() {
			dir := openDir(t, t.TempDir())
			resp := abused(t, s, &rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{ImagesDirFD: int32(dir.Fd()), PID: new(int32(v.Pid)),
				LeaveRunning: new(true), NotifyScripts: new(true)}}, stage, a)
			testkit.WaitFor(t, "the process to run after "+stage+", at which the client "+a.name, func() bool { return v.State() == "S" || v.State() == "R" })
			if resp != nil && (resp.Success || text(resp) == "" || resp.CrErrno == nil) {
				t.Errorf("%s, at which the client %s: %+v, %s", stage, a.name, resp, text(resp))
			}
		}
	}
	client := criu.New(&criu.Service{Path: s.socket})
	if _, err := client.Dump(t.Context(), criu.DumpOptions{PID: v.Pid, ImagesDir: images}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wait(); err != nil {
		t.Fatal(err)
	}
	dir := openDir(t, images)
	for _, stage := range restoreStages {
		stage = strings.TrimSuffix(stage, "*")
		if stage == "post-resume" {
			continue // it runs by then
		}
		for _, a := range abuses() {
			if stage == "pre-resume" && a.name == "goes after the answer" {
				continue // that was a yes
			}
			resp := abused(t, s, &rpc.Req{Type: rpc.ReqRestore, Opts: &rpc.Opts{ImagesDirFD: int32(dir.Fd()), NotifyScripts: new(true)}}, stage, a)
			testkit.WaitFor(t, "nothing to be left after "+stage+", at which the client "+a.name, func() bool {
				_, err := os.Stat(procPath(v.Pid, ""))
				return errors.Is(err, os.ErrNotExist)
			})
			if resp != nil && (resp.Success || text(resp) == "" || resp.CrErrno == nil) {
				t.Errorf("%s, at which the client %s: %+v, %s", stage, a.name, resp, text(resp))
			}
		}
	}
	if _, err := client.Restore(t.Context(), criu.RestoreOptions{ImagesDir: images}); err != nil {
		t.Fatal(err)
	}
	v.Restored()
	v.MustVerify()
}

// Clients that say too little, too much or what they should not hurt nobody else, and are told what is wrong where that can be done.
func TestAbuseOfEngine(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.VictimProgram("counter"))
	s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle = 2 })
	v := testkit.StartVictim(t, "counter")
	other := func(t *testing.T) {
		t.Helper()
		if _, err := criu.New(&criu.Service{Path: s.socket}).Version(t.Context()); err != nil {
			t.Error("another client:", err)
		}
	}
	dump := func(fd int32) *rpc.Req {
		return &rpc.Req{Type: rpc.ReqDump, Opts: &rpc.Opts{ImagesDirFD: fd, PID: new(int32(v.Pid)), LeaveRunning: new(true)}}
	}
	images := openDir(t, t.TempDir())
	t.Run("nothing, and goes", func(t *testing.T) {
		fd := dial(t, s)
		other(t)
		unix.Close(fd)
		other(t)
	})
	t.Run("goes before the answer", func(t *testing.T) {
		fd := dial(t, s)
		send(t, fd, dump(int32(images.Fd())).Append(nil))
		unix.Close(fd)
		other(t)
		testkit.WaitFor(t, "the process to run", func() bool { return v.State() == "S" || v.State() == "R" })
	})
	t.Run("lengths that are not so", func(t *testing.T) {
		// Field 2 of a request is its options, with a length before them; field 11 of these is a name, likewise.
		whole := dump(int32(images.Fd())).Append(nil)
		for name, packet := range map[string][]byte{
			"too long":          {8, 1, 18, 100, 8, 3},
			"huge":              {8, 1, 18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
			"endless number":    append([]byte{8, 1, 18}, slices.Repeat([]byte{0xff}, 20)...),
			"too long, within":  {8, 1, 18, 6, 8, 3, 0x5a, 0x7f, 'a', 'b'},
			"a group":           {8, 1, 19, 20},
			"cut off":           whole[:len(whole)-1],
			"no type":           whole[2:],
			"type of four GiB":  {8, 0xff, 0xff, 0xff, 0xff, 0x0f},
			"a field of number": {0, 0, 0, 0},
		} {
			fd := dial(t, s)
			send(t, fd, packet)
			if resp, err := answer(t, fd); err != nil || resp.Success || text(resp) == "" || resp.CrErrno == nil {
				t.Errorf("%s: answered %+v, %v", name, resp, err)
			}
			unix.Close(fd)
		}
		other(t)
	})
	t.Run("a hundred megabytes", func(t *testing.T) {
		fd := dial(t, s)
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20); err != nil {
			t.Fatal(err)
		}
		// The first is more than is read; nobody takes the others.
		sent := 0
		for range 100 {
			if err := unix.Send(fd, make([]byte, rpc.MaxMessage+1), unix.MSG_NOSIGNAL); err != nil {
				break
			}
			sent++
		}
		other(t)
		if resp, err := answer(t, fd); err != nil || resp.CrErrno == nil || *resp.CrErrno != int32(unix.EMSGSIZE) {
			t.Errorf("after %d packets: answered %+v, %v", sent, resp, err)
		}
	})
	t.Run("as much as it may", func(t *testing.T) {
		fd := dial(t, s)
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20); err != nil {
			t.Fatal(err)
		}
		req := (&rpc.Req{Type: rpc.ReqVersion, Opts: &rpc.Opts{ImagesDirFD: -1, LogFile: new(strings.Repeat("x", rpc.MaxMessage-100))}}).Append(nil)
		send(t, fd, req)
		if resp, err := answer(t, fd); err != nil || resp.Type != rpc.ReqVersion {
			t.Errorf("%d bytes: answered %+v, %v", len(req), resp, err)
		}
	})
	t.Run("descriptors", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fd := dial(t, s)
		defer unix.Close(fd)
		fds := slices.Repeat([]int{int(w.Fd())}, 253)
		if err := unix.Sendmsg(fd, dump(int32(images.Fd())).Append(nil), unix.UnixRights(fds...), nil, 0); err != nil {
			t.Fatal(err)
		}
		if resp, err := answer(t, fd); err != nil || !resp.Success {
			t.Errorf("answered %+v, %v", resp, err)
		}
		w.Close()
		r.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("somebody has the pipe's other end: %d, %v", n, err)
		}
	})
	t.Run("directories that are none", func(t *testing.T) {
		file, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		fd := dial(t, s)
		unix.Close(fd) // its number is free from here on
		for _, tc := range []struct {
			number int
			errno  unix.Errno
		}{{int(file.Fd()), unix.ENOTDIR}, {int(r.Fd()), unix.ENOTDIR}, {pidfd, unix.ENOTDIR}, {1 << 30, unix.EBADF}, {-7, unix.EBADF}} {
			resp := askOnce(t, &criu.Service{Path: s.socket}, dump(int32(tc.number)))
			if resp.Success || resp.CrErrno == nil || *resp.CrErrno != int32(tc.errno) || !strings.Contains(text(resp), "images_dir_fd") {
				t.Errorf("descriptor %d: %+v, %s; want %v", tc.number, resp, text(resp), tc.errno)
			}
		}
	})
	t.Run("answers that nobody asked for", func(t *testing.T) {
		fd := dial(t, s)
		defer unix.Close(fd)
		req := dump(int32(images.Fd()))
		req.Opts.NotifyScripts = new(true)
		send(t, fd, req.Append(nil))
		yes := (&rpc.Req{Type: rpc.ReqNotify, NotifySuccess: new(true)}).Append(nil)
		for range 10 { // more than there are stages: all are answered before they come
			if err := unix.Send(fd, yes, unix.MSG_NOSIGNAL); err != nil && !errors.Is(err, unix.EPIPE) { // it may be over already
				t.Fatal(err)
			}
		}
		for {
			resp, err := answer(t, fd)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Type == rpc.ReqNotify {
				continue
			}
			if !resp.Success {
				t.Errorf("answered %+v, %s", resp, text(resp))
			}
			break
		}
		other(t)
	})
	v.MustVerify()
}

// startHeld starts a client that waits until it is told to go on, and returns where to tell it.
func startHeld(t *testing.T, cmd *exec.Cmd) io.WriteCloser {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	return in
}

// A client that is killed in the middle of a dump of itself: it is gone, and so is whatever was made for it.
func TestClientThatIsKilledInItsOwnDump(t *testing.T) {
	testkit.Need(t, testkit.Root)
	s := startServer(t, builtin, "", func(s *Server) { s.MaxIdle = 1 })
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		cmd := s.clientCommand(attack{Type: rpc.ReqDump, Images: testkit.SharedDir(t), Wait: true, Opts: map[string]any{"LeaveRunning": true}}, 0)
		in := startHeld(t, cmd)
		if _, err := in.Write([]byte("g")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), after) // where it is by then is what differs from run to run
		<-ctx.Done()
		cancel()
		cmd.Process.Kill()
		cmd.Wait()
		testkit.WaitFor(t, "the client to be gone", func() bool {
			_, err := os.Stat(procPath(cmd.Process.Pid, ""))
			return errors.Is(err, os.ErrNotExist)
		})
		if _, err := criu.New(&criu.Service{Path: s.socket}).Version(t.Context()); err != nil {
			t.Errorf("killed after %v; another client: %v", after, err)
		}
	}
}
